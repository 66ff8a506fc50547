"""Request of a benchmark worker (`CaseJob`) and its response (`CaseResult`). A sample is an image, or an image and a question about it."""

from dataclasses import dataclass, field
from typing import Any

from toolkit.records.image_quality import Retrieval
from toolkit.records.record import ImageTimes


@dataclass(frozen=True, kw_only=True)
class CaseJob:
    """One case, to be run in one process."""

    task: str = "caption"
    """Task of the model, a key of `toolkit.bench.tasks.requests.REQUESTS`."""
    opener: str
    """"module:function", see `toolkit.bench.cases.Case.open`."""
    path: str
    """Folder of the artifact, checkpoint or peer."""
    device: str
    tied: bool
    """Whether the baseline's head and word embeddings are one tensor."""
    renamed: bool
    """Whether the names in the baseline's weight files differ from those of transformers."""
    adapter: str | None = None
    """Folder of a PEFT adapter that is merged into the baseline's checkpoint."""
    threads: int
    batch_size: int
    images: tuple[str, ...]
    references: tuple[tuple[str, ...], ...]
    """Reference texts of each sample; scored if there are any and `score` is true."""
    questions: tuple[str | None, ...] = ()
    """Question of each sample; None for captions. Empty: no sample has one."""
    texts: int | None = None
    """See `toolkit.records.record.Workload`."""
    prompt: str | None
    num_beams: int
    forced_tokens: int | None
    min_length: int | None
    max_length: int | None
    """See `toolkit.records.record.Workload`."""
    warmup: int
    score: bool
    distributions: str | None = None
    """Folder of the baseline's next-token distributions (`toolkit.bench.distributions`); None: no divergence is measured."""
    stores_distributions: bool = False
    """Whether this case is the baseline, which writes the folder; other cases read it."""
    generation: dict[str, Any] = field(default_factory=dict)
    draft: bool | None = None
    streams: int = 1
    """Threads that run the model at once, in a throughput measurement."""

    def decoding(self, model: Any) -> dict[str, Any]:  # noqa: ANN401 - see `toolkit.bench.cases.Opened`
        """Return the arguments of `generate`. Forced tokens are counted after [DEC] and the prompt."""
        lengths = {"min_length": self.min_length, "max_length": self.max_length}
        if self.forced_tokens is not None:
            lengths = dict.fromkeys(lengths, prompt_tokens(model, self.prompt) + self.forced_tokens)
        prompt = {} if self.prompt is None else {"prompt": self.prompt}
        return {**prompt, "num_beams": self.num_beams, **lengths, **self.generation}


def prompt_tokens(model: Any, prompt: str | None) -> int:  # noqa: ANN401
    """Return the number of tokens that are not generated: [DEC] and the prompt."""
    return len(model.text_ids(prompt)) - 1 if prompt else 1


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What the case returned for one sample, and its scores; see `toolkit.records.image_quality.ImageQuality`."""

    text: str
    without_prompt: str
    """The text without the prompt, as it is scored."""
    tokens: int
    error: str | None
    log_probability: float | None = None
    """None if the case cannot score."""
    scored_tokens: int | None = None
    kl_divergence: float | None = None
    retrieval: Retrieval | None = None


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """The worker's measurements."""

    versions: dict[str, str]
    providers: tuple[str, ...]
    parameter_bytes: int | None
    """Baseline only: 4 bytes per unique parameter."""
    import_s: float
    load_s: float
    first_caption_s: float
    cpu_s: float
    loaded_rss_bytes: int | None
    peak_rss_bytes: int | None
    peak_gpu_bytes: int | None
    warmup_s: tuple[float, ...]
    times: tuple[ImageTimes, ...]
    """One entry per batch."""
    samples: tuple[Sample, ...]
    hash_s: float | None = None
    energy_j: float | None = None
    throttled_s: float | None = None
