"""What a `Captioner` returns: captions, and what it runs."""

from dataclasses import dataclass

from runtimes.artifact.generation import GenerationConfig
from runtimes.artifact.manifest import ImageSpec
from runtimes.decoding.session import EngineInfo


@dataclass(frozen=True, kw_only=True)
class Caption:
    """The caption of an image, or why there is none."""

    text: str
    token_ids: tuple[int, ...]
    """All ids, start and end token included."""
    score: float | None
    """Natural-log probability of the generated tokens / generated length ** length_penalty."""
    error: str | None = None
    """One line if the image could not be captioned; then `text` is empty, there are no ids and no score."""
    code: str | None = None
    """Of the error, see `ToolkitError.code`."""


@dataclass(frozen=True, kw_only=True)
class LoadTimings:
    """Seconds of two parts of loading."""

    import_s: float = 0.0
    """Importing the engine's library, if it was not imported before."""
    hash_s: float = 0.0
    """Hashing the files, in a thread beside importing and loading."""


@dataclass(frozen=True, kw_only=True)
class CaptionerInfo:
    """What a captioner runs, and with what."""

    artifact: str
    """The artifact's name."""
    digest: str
    """sha256 of the bytes of its manifest.json."""
    recipe: str
    task: str
    family: str
    engine: EngineInfo
    """Engine, library versions, device, execution providers, CPU threads and precision that are really in use."""
    image: ImageSpec
    """How an image becomes pixels."""
    max_pixels: int
    """An image with more pixels is refused."""
    defaults: GenerationConfig
    """Settings of a caption for which nothing else is asked."""
