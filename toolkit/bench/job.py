"""What a benchmark worker is told and what it answers: the two ends of its pipe, as dataclasses."""

from dataclasses import dataclass

from toolkit.records.record import PictureTimes


@dataclass(frozen=True, kw_only=True)
class Job:
    """One case for one process."""

    artifact: str | None
    """Path of an artifact; None runs transformers on the checkpoint, or a peer."""
    checkpoint: str | None
    device: str
    allow_bin: bool
    threads: int
    batch_size: int
    images: tuple[str, ...]
    references: tuple[tuple[str, ...], ...]
    """Per image; scored when there are any and `score` is set."""
    prompt: str | None
    beams: int
    min_length: int
    max_length: int
    warmup: int
    score: bool
    peer: str | None = None
    """Path of a prepared peer, in place of an artifact."""


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
    times: tuple[PictureTimes, ...]
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
    """Of each picture's references; None where the artifact cannot score."""
    scored_tokens: tuple[int | None, ...] = ()
