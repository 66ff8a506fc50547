"""The tasks that the server offers: path, options of a request, and the rows of images. Routes, limits and OpenAPI are derived from it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from runtimes.artifact import json_dataclass
from runtimes.errors import RequestError
from runtimes.pool.job import Request
from runtimes.pool.rows import Row, row_of
from toolkit.serve.settings import Limits

if TYPE_CHECKING:
    from runtimes.decoding.search import PhaseTimer
    from runtimes.images.reading import PreparedImage
    from runtimes.tasks.captioner import Captioner

CAPTION_BASE = Request(
    prompt=None, num_beams=None, min_length=None, max_length=None, batch_size=1, max_pixels=None, reduce_large=False, strip_prompt=False
)
SERVER_OPTIONS = frozenset({"batch_size", "max_pixels", "reduce_large", "draft", "questions"})
"""Fields of a `Request` that are settings of the server or of another task."""


@dataclass(frozen=True, kw_only=True)
class ServedTask:
    """A task and its route."""

    path: str
    summary: str
    base: Any
    """Dataclass with the options of a request that gives none."""
    texts: frozenset[str]
    """Options whose value is text, also if it looks like JSON."""
    rows: Callable[["Captioner", Sequence[str], Sequence["PreparedImage"], Any, "PhaseTimer"], list[Row]]
    """Function of the model, names of images, images, options and timer; returns the rows of the images."""

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the options that a client may give."""
        return tuple(name for name in type(self.base).__dataclass_fields__ if name not in SERVER_OPTIONS)


def caption_rows(
    model: "Captioner", names: Sequence[str], images: Sequence["PreparedImage"], request: Request, timer: "PhaseTimer"
) -> list[Row]:
    """Caption images in one run of the model."""
    captions = model.caption(
        images,
        prompt=request.prompt,
        batch_size=len(images),
        log_probabilities=request.log_probabilities,
        timer=timer,
        **request.generation_options(model.tokenizer),
    )
    prompt = request.prompt if request.strip_prompt else None
    return [row_of(name, [caption], model, prompt) for name, caption in zip(names, captions, strict=True)]


TASKS: dict[str, ServedTask] = {
    "caption": ServedTask(path="/v1/caption", summary="Caption images.", base=CAPTION_BASE, texts=frozenset({"prompt"}), rows=caption_rows),
}
"""Task of a manifest → route."""


def check_options(task: str, given: Mapping[str, Any], limits: Limits) -> Any:  # noqa: ANN401 - a dataclass of the task
    """Return the options of a request as the task's dataclass.

    Raises:
        RequestError: An option is unknown, has the wrong type, or exceeds a limit of the server.
    """
    spec = TASKS[task]
    if unknown := sorted(set(given) - set(spec.options)):
        raise RequestError(f"unknown option(s) {', '.join(unknown)}; known: {', '.join(spec.options)}")
    options, problems = json_dataclass.load(type(spec.base), json_dataclass.dump(spec.base) | dict(given))
    if options is None:
        raise RequestError("; ".join(problems))
    for name in ("num_beams", "num_return_sequences"):
        if (getattr(options, name, None) or 1) > limits.max_beams:
            raise RequestError(f"{name} is {getattr(options, name)}; this server accepts at most {limits.max_beams}")
    return options


def rows_per_image(options: object) -> int:
    """Return the number of decoder rows of an image, which determines most of its cost."""
    return max(getattr(options, "num_beams", None) or 1, getattr(options, "num_return_sequences", None) or 1)


def option_values(options: object) -> dict[str, Any]:
    """Return checked options as JSON values."""
    return asdict(options)  # type: ignore[call-overload,no-any-return]
