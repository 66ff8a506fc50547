"""Messages of a captioning subprocess: the job and the images that it receives, and its first reply."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from runtimes.artifact.generation import GenerationOptions

if TYPE_CHECKING:
    from runtimes.decoding.drafts.open_drafter import DraftMode
    from runtimes.decoding.tokenizer import CaptionTokenizer

DRAFT_MODES: dict[str, "DraftMode"] = {"off": False, "table": True, "learn": "learn"}
"""`Request.draft` → argument `draft` of `runtimes.load`."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """Settings that determine, with the artifact, the row of an image."""

    prompt: str | None
    num_beams: int | None
    """None for this field and the lengths: the artifact's default."""
    min_length: int | None
    max_length: int | None
    batch_size: int
    """Images per run of the model."""
    max_pixels: int | None
    """None: the default of `runtimes.load`."""
    reduce_large: bool
    strip_prompt: bool
    max_new_tokens: int | None = None
    """None for this field and those below: the artifact's default."""
    length_penalty: float | None = None
    repetition_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    suppress_tokens: tuple[int, ...] | None = None
    do_sample: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    num_return_sequences: int | None = None
    early_stopping: Literal[False, True, "never"] | None = None
    bad_words_ids: tuple[tuple[int, ...], ...] | None = None
    bad_words: tuple[str, ...] = ()
    """Texts whose tokens are added to `bad_words_ids`; with any, those of the artifact do not apply."""
    draft: Literal["off", "table", "learn"] | None = None
    """How greedy search drafts tokens; None: the artifact's setting. See `runtimes.load`."""
    log_probabilities: bool = False
    """Whether rows have the log-probability of each token."""
    questions: tuple[str, ...] = ()
    """Questions that are asked of every image; without any, images are captioned."""

    @property
    def task(self) -> str:
        """Task of the artifact that the request needs."""
        return "vqa" if self.questions else "caption"

    def draft_mode(self) -> "DraftMode":
        """Return the argument `draft` of `runtimes.load`."""
        return None if self.draft is None else DRAFT_MODES[self.draft]

    def generation_options(self, tokenizer: "CaptionTokenizer") -> GenerationOptions:
        """Return the settings of the search as arguments of `Captioner.caption`."""
        options = {name: getattr(self, name) for name in GenerationOptions.__annotations__}
        if self.bad_words:
            options["bad_words_ids"] = (*(self.bad_words_ids or ()), *tokenizer.words_ids(self.bad_words))
        return cast("GenerationOptions", options)


@dataclass(frozen=True)
class Item:
    """An image of a job."""

    name: str
    """Its name in rows; a path if there is no content."""
    content: bytes | None = None
    """The bytes of its file."""
    index: int = 0
    """Position in the job, for the caller."""

    @property
    def source(self) -> str | bytes:
        """The image as an argument of `Captioner.caption`."""
        return self.name if self.content is None else self.content


Batch: TypeAlias = Sequence[Item]
"""Images that share a run of the model."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How captioners share the cores."""

    processes: int
    threads: int
    """CPU threads of each process."""
    batch_size: int
    reason: str
    """Why, in one line."""

    def __str__(self) -> str:
        batch = "" if self.batch_size == 1 else f", {self.batch_size} images per run"
        return f"{_count(self.processes, 'process', 'es')} with {_count(self.threads, 'thread', 's')}{batch}"


def _count(number: int, noun: str, plural: str) -> str:
    return f"{number} {noun}{plural if number > 1 else ''}"


@dataclass(frozen=True, kw_only=True)
class CaptionJob:
    """The artifact and settings of one subprocess."""

    artifact: str
    device: str
    threads: int | None
    readers: int
    """Threads that read images ahead of the model."""
    request: Request
    log_level: int
    timeout_s: float | None = None
    """Time limit per image, which ends the subprocess; None: no limit."""
    provider_options: dict[str, Any] = field(default_factory=dict)
    """See `runtimes.load`."""


@dataclass(frozen=True, kw_only=True)
class Ready:
    """The artifact, device and libraries in use."""

    artifact: str
    """The manifest's digest."""
    device: str
    versions: dict[str, str]
    """Versions of the engine's libraries."""
    batch_invariant: bool
    """Whether captions of this request do not depend on the batch size."""
