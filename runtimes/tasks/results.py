"""What loaded models return: generated texts, load timings and information about the artifact."""

from dataclasses import dataclass
from typing import Literal, Self, TypeAlias

from runtimes.artifact.generation import GenerationConfig
from runtimes.artifact.manifest import ImageSpec
from runtimes.decoding.session import EngineInfo, Float32

FinishReason: TypeAlias = Literal["stop", "length"]


@dataclass(frozen=True, kw_only=True)
class GeneratedText:
    """A text about an image, or the error that prevented it."""

    text: str
    """The text, prompt included, without special tokens."""
    token_ids: tuple[int, ...]
    """All ids, start and end token included."""
    score: float | None
    """Natural-log probability of the generated tokens / generated length ** length_penalty."""
    log_probabilities: tuple[float, ...] | None = None
    """Natural-log probability of each generated token, on request: those that `score` sums. None without `log_probabilities=True`."""
    finish_reason: FinishReason | None = None
    """"stop" if the model ended the text, "length" if the text was cut at its greatest length; None with an error."""
    alternatives: tuple[Self, ...] = ()
    """Further texts of the image, see `GenerationConfig.num_return_sequences`."""
    error: str | None = None
    """Message in one line if the image could not be used; then `text` and `token_ids` are empty and `score` is None."""
    code: str | None = None
    """Code of the error, see `ToolkitError.code`."""


@dataclass(frozen=True, kw_only=True)
class Caption(GeneratedText):
    """The caption of an image."""


@dataclass(frozen=True, kw_only=True)
class Answer(GeneratedText):
    """The answer to a question about an image."""

    question: str
    """The question."""


@dataclass(frozen=True, kw_only=True)
class GeneratedToken:
    """A token of a text that is being generated, see `Captioner.stream_tokens`."""

    token_id: int
    """Id of the token in the tokenizer's vocabulary."""
    log_probability: float
    """Natural-log probability of the token by the model."""
    text: str
    """Text up to this token, prompt included. The next token may continue its last word."""
    finish_reason: FinishReason | None
    """Of the last token, see `GeneratedText.finish_reason`; None for the others."""


@dataclass(frozen=True, kw_only=True)
class LoadTimings:
    """Seconds of two phases of loading."""

    import_s: float = 0.0
    """Time to import the engine's library; near 0 if it was imported before."""
    hash_s: float = 0.0
    """Time to hash the files, in a thread parallel to import and loading."""


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """The loaded artifact, and the engine and settings in use."""

    artifact: str
    """The artifact's name."""
    digest: str
    """sha256 of the bytes of its manifest.json."""
    recipe: str
    """Name of its recipe."""
    task: str
    """Task of the model, see `runtimes.tasks.registry`."""
    family: str
    """Model family: "blip"."""
    engine: EngineInfo
    """Engine, library versions, device, execution providers, CPU threads and precision in use."""
    image: ImageSpec
    """Preprocessing of images."""
    max_pixels: int
    """Images with more pixels are refused."""
    defaults: GenerationConfig
    """Settings of the search for arguments of None."""


@dataclass(frozen=True, kw_only=True)
class Match:
    """How well each text describes an image, or the error that prevented it."""

    probabilities: tuple[float, ...] = ()
    """Per text: probability of the matching head that it describes the image."""
    similarities: tuple[float, ...] = ()
    """Per text: cosine of the contrastive embeddings, from -1 to 1."""
    error: str | None = None
    """Message in one line if the image could not be compared; then the tuples are empty."""
    code: str | None = None
    """Code of the error, see `ToolkitError.code`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Embedding:
    """The embedding of an image, or the error that prevented it."""

    vector: Float32 | None = None
    """f32[E], of length 1; None with an error."""
    error: str | None = None
    """Message in one line if the image could not be embedded."""
    code: str | None = None
    """Code of the error, see `ToolkitError.code`."""
