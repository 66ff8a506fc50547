"""Caption the images of a job in this process and yield rows in the order of the images."""

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from itertools import tee

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
    captioner = load(
        job.artifact,
        device=job.device,
        threads=job.threads,
        max_pixels=request.max_pixels or MAX_PIXELS,
        reduce_large=request.reduce_large,
        draft=request.draft_mode(),
        provider_options=job.provider_options,
    )
    names, sources = tee(job.images if images is None else images)
    captions = captioner.stream(
        sources,
        prompt=request.prompt,
        batch_size=request.batch_size,
        workers=job.readers,
        log_probabilities=request.log_probabilities,
        **request.generation_options(captioner.tokenizer),
    )
    engine = captioner.session.info()
    on_ready(Ready(artifact=captioner.manifest.digest, device=engine.device, versions=engine.versions))
    with closing(captions):
        # `captions` comes first, so that zip does not take a name before its caption is available.
        for caption, image in zip(captions, names, strict=True):
            yield row_of(image, caption, captioner, request.prompt if request.strip_prompt else None)
