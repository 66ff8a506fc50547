"""What a benchmark worker is told and what it answers: the two ends of its pipe, as dataclasses."""

from dataclasses import dataclass
from typing import Any

from toolkit.records.record import ImageTimes


@dataclass(frozen=True, kw_only=True)
class Job:
    """One case for one process."""

    opener: str
    """"module:function", see `toolkit.bench.cases.Case.open`."""
    path: str
    """What it opens."""
    device: str
    allow_bin: bool
    threads: int
    batch_size: int
    images: tuple[str, ...]
    references: tuple[tuple[str, ...], ...]
    """Per image; scored when there are any and `score` is set."""
    prompt: str | None
    num_beams: int
    forced_tokens: int | None
    min_length: int | None
    max_length: int | None
    """As in a `Workload`."""
    warmup: int
    score: bool

    def decoding(self, captioner: Any) -> dict[str, Any]:  # noqa: ANN401 - see `toolkit.bench.cases.Opened`
        """Return the arguments of `caption`: forced tokens count from the end of [DEC] and the prompt."""
        lengths = {"min_length": self.min_length, "max_length": self.max_length}
        if self.forced_tokens is not None:
            lengths = dict.fromkeys(lengths, prompt_tokens(captioner, self.prompt) + self.forced_tokens)
        return {"prompt": self.prompt, "num_beams": self.num_beams, **lengths}


def prompt_tokens(captioner: Any, prompt: str | None) -> int:  # noqa: ANN401
    """Return the tokens of every caption that are not generated: [DEC] and the prompt."""
    return len(captioner.caption_ids(prompt)) - 1 if prompt else 1


@dataclass(frozen=True, kw_only=True)
class Result:
    """What the worker measured."""

    versions: dict[str, str]
    providers: tuple[str, ...]
    parameter_bytes: int | None
    """Of the baseline: unique parameters x 4."""
    import_s: float
    load_s: float
    first_caption_s: float
    cpu_s: float
    loaded_rss_bytes: int | None
    peak_rss_bytes: int | None
    warmup_s: tuple[float, ...]
    times: tuple[ImageTimes, ...]
    """Of each batch."""
    captions: tuple[str, ...]
    without_prompt: tuple[str, ...]
    """What is scored."""
    tokens: tuple[int, ...]
    errors: tuple[str | None, ...]
    hash_s: float | None = None
    energy_j: float | None = None
    throttled_s: float | None = None
    log_probabilities: tuple[float | None, ...] = ()
    """Of each image's references; None where the artifact cannot score."""
    scored_tokens: tuple[int | None, ...] = ()
