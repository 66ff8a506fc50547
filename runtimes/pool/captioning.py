"""Caption a job's images in this process: rows, in the order of the images."""

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
    """Load the artifact and yield each image's row.

    Args:
        job: What to caption, and how.
        on_ready: Called with what is in use before the first row.
        images: In place of the job's: an iterator is read only a little ahead of the rows (`Captioner.stream`).

    Raises:
        ToolkitError: What is wrong with artifact or request.
    """
    request = job.request
    captioner = load(
        job.artifact,
        device=job.device,
        threads=job.threads,
        max_pixels=request.max_pixels or MAX_PIXELS,
        provider_options=job.provider_options,
    )
    names, sources = tee(job.images if images is None else images)
    captions = captioner.stream(
        sources,
        prompt=request.prompt,
        num_beams=request.num_beams,
        min_length=request.min_length,
        max_length=request.max_length,
        batch_size=request.batch_size,
        workers=job.readers,
    )
    described = captioner.session.info()
    on_ready(Ready(artifact=captioner.manifest.digest, device=described.device, versions=described.versions))
    with closing(captions):
        for caption, image in zip(captions, names, strict=True):  # in this order: a name is taken when its caption is there
            yield row_of(image, caption, captioner, request.prompt if request.strip_prompt else None)
