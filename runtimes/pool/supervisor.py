"""Caption batches of images in a subprocess, and go on when an image crashes it.

When the subprocess ends early, the current batch and the images that were read ahead are suspects. Each suspect batch is tried again in a
subprocess of its own. A batch that crashes it is tried image by image, and an image that crashes it becomes a row with the error
`IMAGE_CRASH` and its sha256. All other images are captioned in their original batches.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path

from runtimes.artifact.folder import sha256_of
from runtimes.errors import ArtifactCrashError, ImageCrashError, ImageTimeoutError
from runtimes.pool.job import CaptionJob, Ready
from runtimes.pool.rows import Row
from runtimes.workers.parent import Worker

Batch = Sequence[str]
MAX_CRASHES = 5
"""Number of images that crash the subprocess before any image has been captioned, from which the artifact is the cause."""


def supervise(job: CaptionJob, batches: Sequence[Batch], on_ready: Callable[[Ready], None], *, proven: bool) -> Iterator[list[Row]]:
    """Yield the rows of each batch. The rows of a batch that was split are yielded one by one.

    Args:
        job: The job; its images are replaced.
        batches: Paths of images that share a run of the model.
        on_ready: Called for each subprocess before its first row.
        proven: True if the artifact has captioned an image on this machine.

    Raises:
        ArtifactCrashError: The subprocess crashes for every image.
        ToolkitError: The error that the subprocess raised.
    """
    todo, suspects = list(batches), 0
    crashed: list[Row] = []
    while True:
        part = todo[:1] if suspects else todo
        images = tuple(image for batch in part for image in batch)
        done = 0
        limit = None if job.timeout_s is None else job.timeout_s * max(map(len, part))
        with Worker("runtimes.pool.worker", seconds=limit, every_progress=True, quiet=False) as worker:
            replies = worker.request(replace(job, images=images, readers=0 if suspects else job.readers))
            if (first := next(replies, None)) is not None:
                on_ready(Ready(**first))
                for batch in part:
                    rows = list(islice(replies, len(batch)))
                    if len(rows) < len(batch):
                        break
                    yield rows
                    done += 1
        proven = proven or done > 0
        todo, suspects = todo[done:], max(0, suspects - done)
        if first is None:
            raise ArtifactCrashError(Path(job.artifact), f"the subprocess that opened it crashed ({worker.exit_reason})")
        if done == len(part):
            pass
        elif not suspects:
            suspects = min(len(todo), 2 + math.ceil(job.readers / job.request.batch_size))
        elif len(todo[0]) > 1:
            suspects += len(todo[0]) - 1
            todo[:1] = [[image] for image in todo[0]]
        else:
            crashed.append(_crash_row(todo[0][0], worker.exit_reason, timed_out=worker.timed_out))
            todo, suspects = todo[1:], suspects - 1
        if len(crashed) == MAX_CRASHES and not proven:  # their rows are not yielded, so a resumed run tries these images again
            raise ArtifactCrashError(
                Path(job.artifact), f"{MAX_CRASHES} subprocesses crashed, each at another image ({worker.exit_reason})"
            )
        if proven or not todo:
            yield from ([row] for row in crashed)
            crashed = []
        if not todo:
            return


def _crash_row(image: str, reason: str, *, timed_out: bool) -> Row:
    error = ImageTimeoutError(image, reason) if timed_out else ImageCrashError(image, reason)
    row = {"image": image, "error": str(error), "code": error.code}
    with suppress(OSError):
        if Path(image).is_file():
            row["sha256"] = sha256_of(Path(image))
    return row
