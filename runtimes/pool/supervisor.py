"""Caption in another process and outlive it: batches of images go in, their rows come out, whatever an image does to native code.

A process that ends with images unanswered leaves suspects: the batch in the making and what was read ahead. Each of them is tried again
alone, in a process of its own; a batch that ends that one too is tried image by image; an image that does so is a row with the error
`IMAGE_CRASH` and its sha256. All others are captioned in the batches they had.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path

from runtimes.artifact.folder import sha256_of
from runtimes.errors import ArtifactCrashError, ImageCrashError
from runtimes.pool.job import CaptionJob, Ready
from runtimes.pool.rows import Row
from runtimes.workers.parent import Worker

Batch = Sequence[str]
MAX_CRASHES = 5
"""In a row, before anything was captioned: then it is not the images."""


def supervise(job: CaptionJob, batches: Sequence[Batch], on_ready: Callable[[Ready], None], *, proven: bool) -> Iterator[list[Row]]:
    """Yield each batch's rows; those of a batch that had to be taken apart come one by one.

    Args:
        job: All but its images.
        batches: Images that share a run of the model.
        on_ready: Told of each process's artifact before its first row.
        proven: The artifact has captioned an image on this machine.

    Raises:
        ArtifactCrashError: The process ends whatever the image.
        ToolkitError: What the process found wrong with artifact or request.
    """
    todo, suspects = list(batches), 0
    crashed: list[Row] = []
    while True:
        part = todo[:1] if suspects else todo
        images = tuple(image for batch in part for image in batch)
        done = 0
        with Worker("runtimes.pool.worker", quiet=False) as worker:
            answers = worker.request(replace(job, images=images, readers=0 if suspects else job.readers))
            if (first := next(answers, None)) is not None:
                on_ready(Ready(**first))
                for batch in part:
                    rows = list(islice(answers, len(batch)))
                    if len(rows) < len(batch):
                        break
                    yield rows
                    done += 1
        proven = proven or done > 0
        todo, suspects = todo[done:], max(0, suspects - done)
        if first is None:
            raise ArtifactCrashError(Path(job.artifact), f"opening it ended a process ({worker.exit_reason})")
        if done == len(part):
            pass
        elif not suspects:
            suspects = min(len(todo), 2 + math.ceil(job.readers / job.request.batch_size))
        elif len(todo[0]) > 1:
            suspects += len(todo[0]) - 1
            todo[:1] = [[image] for image in todo[0]]
        else:
            crashed.append(_crash_row(todo[0][0], worker.exit_reason))
            todo, suspects = todo[1:], suspects - 1
        if len(crashed) == MAX_CRASHES and not proven:  # none of them is told, so that none is taken for done
            raise ArtifactCrashError(
                Path(job.artifact), f"captioning ended {MAX_CRASHES} processes, each at another image ({worker.exit_reason})"
            )
        if proven or not todo:
            yield from ([row] for row in crashed)
            crashed = []
        if not todo:
            return


def _crash_row(image: str, death: str) -> Row:
    error = ImageCrashError(image, death)
    row = {"image": image, "error": str(error), "code": error.code}
    with suppress(OSError):
        if Path(image).is_file():
            row["sha256"] = sha256_of(Path(image))
    return row
