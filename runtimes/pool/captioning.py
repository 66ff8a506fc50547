"""Caption a job's pictures in this process: a Job goes in, rows come out in order."""

from collections.abc import Callable, Iterator
from contextlib import closing

from runtimes.images.reading import MAX_PIXELS
from runtimes.loading import load
from runtimes.pool.job import Job, Ready
from runtimes.pool.rows import Row, row_of


def rows_of(job: Job, on_ready: Callable[[Ready], None] = lambda ready: None) -> Iterator[Row]:
    """Load the artifact, tell what is in use, and yield each picture's row.

    Raises:
        ToolkitError: What is wrong with artifact or request.
    """
    request = job.request
    captioner = load(job.artifact, device=job.device, threads=job.threads, max_pixels=request.max_pixels or MAX_PIXELS)
    captions = captioner.stream(
        job.images,
        prompt=request.prompt,
        beams=request.beams,
        min_length=request.min_length,
        max_length=request.max_length,
        batch_size=request.batch_size,
        workers=job.readers,
    )
    described = captioner.session.describe()
    on_ready(Ready(artifact=captioner.manifest.digest, device=described.device, versions=described.versions))
    with closing(captions):
        for image, caption in zip(job.images, captions, strict=True):
            yield row_of(image, caption, captioner, request.prompt if request.strip_prompt else None)
