"""Caption in another process and outlive it: batches of pictures go in, their rows come out, whatever a picture does to native code.

A process that ends with pictures unanswered leaves suspects: the batch in the making and what was read ahead. Each of them is tried again
alone, in a process of its own; a batch that ends that one too is tried picture by picture; a picture that does so is a row with the error
`IMAGE_CRASH` and its sha256. All others are captioned in the batches they had.
"""

import json
import math
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import TracebackType

from runtimes.artifact import json_dataclass
from runtimes.artifact.folder import sha256_of
from runtimes.errors import ArtifactCrashError, ImageCrashError, error_from_code
from runtimes.pool.job import Job, Ready
from runtimes.pool.rows import Row

Batch = Sequence[str]
MOST_CRASHES = 5
"""In a row, before anything was captioned: then it is not the pictures."""


def supervise(job: Job, batches: Sequence[Batch], on_ready: Callable[[Ready], None], *, proven: bool) -> Iterator[list[Row]]:
    """Yield each batch's rows; those of a batch that had to be taken apart come one by one.

    Args:
        job: All but its images.
        batches: Pictures that share a run of the model.
        on_ready: Told of each process's artifact before its first row.
        proven: The artifact has captioned a picture on this machine.

    Raises:
        ArtifactCrashError: The process ends whatever the picture.
        ToolkitError: What the process found wrong with artifact or request.
    """
    todo, suspects = list(batches), 0
    crashed: list[Row] = []
    while True:
        part = todo[:1] if suspects else todo
        images = tuple(image for batch in part for image in batch)
        done = 0
        with _Process(replace(job, images=images, readers=0 if suspects else job.readers)) as process:
            if (ready := process.ready()) is not None:
                on_ready(ready)
                for batch in part:
                    rows = list(islice(process.rows, len(batch)))
                    if len(rows) < len(batch):
                        break
                    yield rows
                    done += 1
        proven = proven or done > 0
        todo, suspects = todo[done:], max(0, suspects - done)
        if ready is None:
            raise ArtifactCrashError(Path(job.artifact), f"opening it ended a process ({process.death})")
        if done == len(part):
            pass
        elif not suspects:
            suspects = min(len(todo), 2 + math.ceil(job.readers / job.request.batch_size))
        elif len(todo[0]) > 1:
            suspects += len(todo[0]) - 1
            todo[:1] = [[image] for image in todo[0]]
        else:
            crashed.append(_crash_row(todo[0][0], process.death))
            todo, suspects = todo[1:], suspects - 1
        if len(crashed) == MOST_CRASHES and not proven:  # none of them is told, so that none is taken for done
            raise ArtifactCrashError(
                Path(job.artifact), f"captioning ended {MOST_CRASHES} processes, each at another picture ({process.death})"
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


def death_of(status: int) -> str:
    """Name how a process ended, from its exit status; a negative one is a POSIX signal's number, and Windows has no SIGKILL."""
    if status >= 0:
        return f"exit code {status}"
    name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
    return f"{name}, perhaps out of memory" if name == "SIGKILL" else name


class _Process:
    """A captioning process: `ready` once, then `rows`, as it says them; after the block `death` tells how it ended."""

    def __init__(self, job: Job) -> None:
        self.death = ""
        self._said: str | None = None
        command = [sys.executable, "-m", "runtimes.pool.worker"]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._child.stdin is not None
        with suppress(BrokenPipeError):  # it ended before it read its job
            self._child.stdin.write(json.dumps(json_dataclass.to_json(job)).encode() + b"\n")
            self._child.stdin.flush()  # and stays open: its end tells the process that nobody is here any more
        self.rows = self._messages()

    def ready(self) -> Ready | None:
        """Return what it says before its rows; None if it ended first."""
        first = next(self.rows, None)
        return json_dataclass.from_json(Ready, first["ready"])[0] if first is not None else None

    def _messages(self) -> Iterator[Row]:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            if not line.endswith(b"\n"):
                return  # cut off by its end
            message = json.loads(line)
            if "failed" not in message:
                yield message
            elif message["code"] is not None:
                raise error_from_code(message["code"], message["failed"])
            else:
                self._said = message["failed"]

    def __enter__(self) -> "_Process":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        if kind is not None:
            self._child.kill()
        self._child.stdout.close()
        status = self._child.wait()
        with suppress(BrokenPipeError):
            self._child.stdin.close()
        self.death = self._said or death_of(status)
