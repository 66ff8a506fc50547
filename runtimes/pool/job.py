"""What a captioning process is told and what it says first: the two ends of its pipe, as dataclasses."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Request:
    """What decides, besides the artifact, what is said of an image."""

    prompt: str | None
    num_beams: int | None
    """This and the lengths: None is the artifact's default."""
    min_length: int | None
    max_length: int | None
    batch_size: int
    max_pixels: int | None
    """None: what the runtime refuses by itself."""
    strip_prompt: bool


@dataclass(frozen=True, kw_only=True)
class CaptionJob:
    """Images for one process."""

    artifact: str
    device: str
    threads: int | None
    readers: int
    """Threads that read images ahead of the model."""
    request: Request
    images: tuple[str, ...]
    log_level: int
    provider_options: dict[str, Any] = field(default_factory=dict)
    """See `runtimes.load`."""


@dataclass(frozen=True, kw_only=True)
class Ready:
    """What is really in use."""

    artifact: str
    """The manifest's digest."""
    device: str
    versions: dict[str, str]
    """Of the libraries that compute."""
