"""Caption the images of a job in this process, or answer questions about them, and yield rows in the order of the images."""

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from itertools import islice, repeat, tee
from typing import Any

from runtimes.images.reading import MAX_PIXELS
from runtimes.loading import load
from runtimes.pool.job import CaptionJob, Ready
from runtimes.pool.rows import Row, row_of


def rows_of(
    job: CaptionJob, on_ready: Callable[[Ready], None] = lambda ready: None, images: Iterable[str] | None = None
) -> Generator[Row, None, None]:
    """Load the artifact and yield one row per image.

    Args:
        job: Artifact, images and settings.
        on_ready: Called once before the first row, with the artifact and device in use.
        images: Replaces the images of the job. An iterator is read as far ahead as `Captioner.stream` does.

    Raises:
        ToolkitError: See `runtimes.load` and `Captioner.caption`.
    """
    request = job.request
    model: Any = load(
        job.artifact,
        task=request.task,
        device=job.device,
        threads=job.threads,
        max_pixels=request.max_pixels or MAX_PIXELS,
        reduce_large=request.reduce_large,
        draft=request.draft_mode(),
        provider_options=job.provider_options,
    )
    names, sources = tee(job.images if images is None else images)
    arguments = {
        "batch_size": request.batch_size,
        "workers": job.readers,
        "log_probabilities": request.log_probabilities,
        **request.generation_options(model.tokenizer),
    }
    if request.questions:
        texts = model.stream(sources, repeat(list(request.questions)), **arguments)
    else:
        texts = model.stream(sources, prompt=request.prompt, **arguments)
    engine = model.session.info()
    on_ready(Ready(artifact=model.manifest.digest, device=engine.device, versions=engine.versions))
    with closing(texts):
        # The texts of an image come first, so that zip does not take a name before they are available.
        groups = iter(lambda: list(islice(texts, max(1, len(request.questions)))), [])
        for group, image in zip(groups, names, strict=True):
            yield row_of(image, group, model, request.prompt if request.strip_prompt else None)
