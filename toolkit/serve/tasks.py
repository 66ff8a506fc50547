"""The tasks that the server offers: path, options of a request, and the rows of images. Routes, limits and OpenAPI are derived from it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, cast

from runtimes.artifact import json_dataclass
from runtimes.errors import RequestError
from runtimes.pool.job import Request
from runtimes.pool.rows import Row, match_row, row_of
from toolkit.serve.run_size import RunSize
from toolkit.serve.settings import Limits

if TYPE_CHECKING:
    from runtimes.decoding.search import PhaseTimer
    from runtimes.images.reading import PreparedImage
    from runtimes.tasks.answerer import Answerer
    from runtimes.tasks.captioner import Captioner
    from runtimes.tasks.loaded_model import LoadedModel
    from runtimes.tasks.matcher import Matcher


@dataclass(frozen=True, kw_only=True)
class MatchRequest:
    """Options of image-text matching."""

    texts: tuple[str, ...]
    """Texts that are compared with every image."""


@dataclass(frozen=True, kw_only=True)
class ServedTask:
    """A task and its route."""

    path: str
    summary: str
    sample: Any
    """Dataclass with the options of the check at the start. Optional ones have the value of a request that does not give them."""
    options: tuple[str, ...]
    """Fields of the dataclass that a client may give."""
    rows: Callable[["LoadedModel", Sequence[str], Sequence["PreparedImage"], Any, "PhaseTimer"], list[Row]]
    """Function of the model, names of images, images, options and timer; returns the rows of the images."""
    needed: str | None = None
    """Option that every request must give: a list of texts, or one text in a query or a form."""

    @property
    def texts(self) -> frozenset[str]:
        """Options whose value in a query or a form is text, also if it looks like JSON."""
        return frozenset({"prompt"} & set(self.options))

    @property
    def lists(self) -> frozenset[str]:
        """Options whose value is a list of texts; a query or a form may give one text."""
        return frozenset({"bad_words", "questions", "texts"} & set(self.options))


def caption_rows(
    model: "LoadedModel", names: Sequence[str], images: Sequence["PreparedImage"], request: Request, timer: "PhaseTimer"
) -> list[Row]:
    """Caption images in one run of the model.

    Args:
        model: The captioner.
        names: Names of the images, for the rows.
        images: Decoded images.
        request: Settings that all images share.
        timer: Gets the seconds of each phase.
    """
    captioner = cast("Captioner", model)
    captions = captioner.caption(
        images,
        prompt=request.prompt,
        batch_size=len(images),
        log_probabilities=request.log_probabilities,
        timer=timer,
        **request.generation_options(model.tokenizer),
    )
    prompt = request.prompt if request.strip_prompt else None
    return [row_of(name, [caption], captioner, prompt) for name, caption in zip(names, captions, strict=True)]


def answer_rows(
    model: "LoadedModel", names: Sequence[str], images: Sequence["PreparedImage"], request: Request, timer: "PhaseTimer"
) -> list[Row]:
    """Answer the same questions about each image.

    Args:
        model: The answerer.
        names: Names of the images, for the rows.
        images: Decoded images.
        request: The questions, and settings that all images share.
        timer: Gets the seconds of each phase.
    """
    answerer, count = cast("Answerer", model), len(request.questions)
    answers = answerer.answer(
        images,
        [list(request.questions)] * len(images),
        batch_size=len(images),
        log_probabilities=request.log_probabilities,
        timer=timer,
        **request.generation_options(model.tokenizer),
    )
    return [row_of(name, answers[count * i : count * (i + 1)], answerer, None) for i, name in enumerate(names)]


def match_rows(
    model: "LoadedModel", names: Sequence[str], images: Sequence["PreparedImage"], request: MatchRequest, timer: "PhaseTimer"
) -> list[Row]:
    """Compare the same texts with each image.

    Args:
        model: The matcher.
        names: Names of the images, for the rows.
        images: Decoded images.
        request: The texts.
        timer: Gets the seconds of each phase.
    """
    matches = cast("Matcher", model).stream(images, request.texts, batch_size=len(images), timer=timer)
    return [match_row(name, request.texts, match) for name, match in zip(names, matches, strict=True)]


CAPTION = Request(
    prompt=None, num_beams=None, min_length=None, max_length=None, batch_size=1, max_pixels=None, reduce_large=False, strip_prompt=False
)
SERVER_OPTIONS = frozenset({"batch_size", "max_pixels", "reduce_large", "draft"})
"""Fields of a `Request` that are settings of the server."""
SEARCH_OPTIONS = tuple(
    field.name for field in fields(Request) if field.name not in {*SERVER_OPTIONS, "questions", "prompt", "strip_prompt"}
)

TASKS: dict[str, ServedTask] = {
    "caption": ServedTask(
        path="/v1/caption",
        summary="Caption images.",
        sample=CAPTION,
        options=("prompt", "strip_prompt", *SEARCH_OPTIONS),
        rows=caption_rows,
    ),
    "vqa": ServedTask(
        path="/v1/ask",
        summary="Answer questions about images.",
        sample=replace(CAPTION, questions=("what is in the image?",)),
        options=("questions", *SEARCH_OPTIONS),
        rows=answer_rows,
        needed="questions",
    ),
    "matching": ServedTask(
        path="/v1/match",
        summary="Compare images with texts.",
        sample=MatchRequest(texts=("a cat",)),
        options=("texts",),
        rows=match_rows,
        needed="texts",
    ),
}
"""Task of a manifest → route."""


def check_options(task: str, given: Mapping[str, Any], limits: Limits) -> Any:  # noqa: ANN401 - a dataclass of the task
    """Return the options of a request as the task's dataclass.

    Raises:
        RequestError: An option is unknown, missing, has the wrong type, or exceeds a limit of the server.
    """
    spec = TASKS[task]
    if unknown := sorted(set(given) - set(spec.options)):
        raise RequestError(f"unknown option(s) {', '.join(unknown)}; known: {', '.join(spec.options)}")
    if spec.needed and not given.get(spec.needed):
        raise RequestError(f"the option {spec.needed} is missing: give a list of texts")
    options, problems = json_dataclass.load(type(spec.sample), json_dataclass.dump(spec.sample) | dict(given))
    if options is None:
        raise RequestError("; ".join(problems))
    if (rows := rows_per_image(options)) > limits.max_rows:
        raise RequestError(f"the options ask for {rows} beams, captions or texts per image; this server accepts at most {limits.max_rows}")
    return options


def rows_per_image(options: object) -> int:
    """Return the number of rows of the decoder or of texts per image, which determines most of its cost."""
    beams = max(getattr(options, "num_beams", None) or 1, getattr(options, "num_return_sequences", None) or 1)
    return beams * max(1, len(getattr(options, "questions", ())), len(getattr(options, "texts", ())))


def run_size(options: object) -> RunSize:
    """Return what determines the time of an image."""
    return RunSize.of(rows_per_image(options), getattr(options, "min_length", None) or 0)


def option_values(options: object) -> dict[str, Any]:
    """Return checked options as JSON values."""
    return asdict(options)  # type: ignore[call-overload,no-any-return]
