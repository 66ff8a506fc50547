"""Caption the images of a job in this process, or answer questions about them, and yield rows in the order of the images."""

from collections.abc import Generator, Iterable
from contextlib import closing
from itertools import islice, repeat, tee
from typing import TYPE_CHECKING, Any, cast

from runtimes.images.reading import MAX_PIXELS
from runtimes.pool.batch_invariance import is_batch_invariant
from runtimes.pool.job import CaptionJob, Item, Ready
from runtimes.pool.rows import Row, row_of

if TYPE_CHECKING:
    from runtimes.tasks.text_generator import TextGenerator


def load_arguments(job: CaptionJob) -> dict[str, Any]:
    """Return the arguments of `runtimes.load` for a job."""
    request = job.request
    return {
        "path": job.artifact,
        "task": request.task,
        "device": job.device,
        "threads": job.threads,
        "max_pixels": request.max_pixels or MAX_PIXELS,
        "reduce_large": request.reduce_large,
        "draft": request.draft_mode(),
        "provider_options": job.provider_options,
    }


def rows_of(model: "TextGenerator[Any, Any]", job: CaptionJob, items: Iterable[Item]) -> Generator[Row, None, None]:
    """Yield one row per image.

    Args:
        model: Loaded with `load_arguments`.
        job: The settings.
        items: The images. An iterator is read as far ahead as `Captioner.stream` does.

    Raises:
        ToolkitError: See `Captioner.caption`.
    """
    request = job.request
    named, sources = tee(items)
    stream = cast("Any", model).stream  # the arguments of a `Captioner` and an `Answerer` differ
    arguments = {
        "batch_size": request.batch_size,
        "workers": job.readers,
        "log_probabilities": request.log_probabilities,
        **request.generation_options(model.tokenizer),
    }
    images = (item.source for item in sources)
    if request.questions:
        texts = stream(images, repeat(list(request.questions)), **arguments)
    else:
        texts = stream(images, prompt=request.prompt, **arguments)
    with closing(texts):
        # The texts of an image come first, so that zip does not take an item before they are available.
        groups = iter(lambda: list(islice(texts, max(1, len(request.questions)))), [])
        for group, item in zip(groups, named, strict=True):
            yield row_of(item.name, group, model, request.prompt if request.strip_prompt else None)


def ready_of(model: "TextGenerator[Any, Any]", job: CaptionJob) -> Ready:
    """Return the facts about a loaded artifact that its supervisor needs."""
    engine = model.session.info()
    return Ready(
        artifact=model.manifest.digest,
        device=engine.device,
        versions=engine.versions,
        batch_invariant=is_batch_invariant(model, job.request),
    )
