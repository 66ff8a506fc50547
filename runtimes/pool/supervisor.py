"""Caption batches of images in subprocesses that share one queue, and go on when an image crashes one of them.

When a subprocess ends early, the batches in flight there are suspects: the current one, and those that were read ahead. Each suspect batch
is tried again in a subprocess of its own. A batch that crashes it is tried image by image, and an image that crashes it becomes a row with
the error `IMAGE_CRASH` and its sha256. All other images are captioned in their original batches.

A thread drives each subprocess. Subprocesses share little memory, since ONNX Runtime packs quantized weights into memory of its own.
"""

import logging
import threading
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Self

from runtimes.errors import ArtifactCrashError
from runtimes.pool.exchange import Done, Exchange
from runtimes.pool.job import Batch, CaptionJob, Ready
from runtimes.pool.lane import Lane

logger = logging.getLogger(__name__)

MAX_CRASHES = 5
"""Number of images that crash a subprocess before any image has been captioned, from which the artifact is the cause."""
AHEAD = 8
"""Batches per process that are handed out and whose rows the caller has not taken yet."""


class Supervisor:
    """Captioning subprocesses. As a context manager, it ends them at the end of the block.

    Args:
        processes: Number of subprocesses. They start when there are batches for them and stay open between runs.
    """

    def __init__(self, processes: int = 1) -> None:
        self._lanes = [Lane() for _ in range(processes)]
        self._proven = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the subprocesses."""
        for lane in self._lanes:
            lane.close()

    def run(
        self, job: CaptionJob, batches: Iterable[Batch], on_ready: Callable[[Ready], None] = lambda ready: None, *, proven: bool = False
    ) -> Generator[Done, None, None]:
        """Yield the images and rows of each batch as soon as they are done. Those of a batch that was split are yielded one by one.

        Close the iterator to stop early; the subprocesses end.

        Args:
            job: The artifact and the settings. If they need the captioners of the last job, these are used again.
            batches: Images that share a run of the model: `Request.batch_size` of them, and fewer in the last batch. Threads consume it.
            on_ready: Called for each subprocess that has loaded the artifact, before its first rows.
            proven: True if the artifact has captioned an image on this machine.

        Raises:
            ArtifactCrashError: The subprocesses crash for every image.
            ToolkitError: The error that a subprocess raised.
        """
        self._proven = self._proven or proven
        run = _Run(job, Exchange(batches, len(self._lanes), AHEAD * len(self._lanes)), proven=self._proven)
        threads = [threading.Thread(target=run.drive, args=(lane,), daemon=True) for lane in self._lanes]
        try:
            for thread in threads:
                thread.start()
            for message in run.exchange.messages():
                if isinstance(message, Ready):
                    on_ready(message)
                    continue
                self._proven = True
                yield message
                yield from run.crashed()
            yield from run.crashed()
        finally:
            run.exchange.stop()
            alive = [thread for thread in threads if thread.is_alive()]  # Ctrl-C may come before a thread starts; it ends itself then
            if alive:
                for lane in self._lanes:
                    lane.kill()
            for thread in alive:
                thread.join()

    def open(self, job: CaptionJob) -> Ready:
        """Load the artifact of a job in one subprocess, and return the facts about it.

        Raises:
            ToolkitError: See `run`.
        """
        facts: list[Done | Ready] = []
        self._lanes[0].caption(job, None, lambda: None, facts.append)
        for message in facts:
            if isinstance(message, Ready):
                return message
        raise _unopened(job, self._lanes[0])

    def images_per_s(self) -> float:
        """Return the sum of the rates of the subprocesses, loading and first batches excluded; 0 before there are any."""
        return sum(lane.images / lane.seconds for lane in self._lanes if lane.seconds > 0)

    def measured(self) -> bool:
        """Return whether every subprocess has a rate."""
        return all(lane.images for lane in self._lanes)

    def process_ids(self) -> list[int]:
        """Return the ids of the open subprocesses."""
        return [process for lane in self._lanes if (process := lane.process_id) is not None]


class _Run:
    """The work of one run, which a thread for each subprocess does."""

    def __init__(self, job: CaptionJob, exchange: Exchange, *, proven: bool) -> None:
        self._job, self.exchange, self._proven = job, exchange, proven
        self._crashed: list[Done] = []
        self._lock = threading.Lock()

    def drive(self, lane: Lane) -> None:
        """Caption batches in one subprocess until none is left."""
        exchange = self.exchange
        try:
            while not exchange.stopped:
                if (suspect := exchange.suspect()) is not None:
                    self._retry(lane, suspect)
                elif (batch := exchange.fresh()) is None:
                    if exchange.leave():
                        break
                elif left := lane.caption(self._job, batch, exchange.fresh, self._send):
                    exchange.accuse(left)
                    if not lane.opened and not exchange.stopped:
                        self._give_up(lane)
                        break
        except BaseException as error:  # it is raised in the thread of the caller
            lane.kill()
            lane.close()
            exchange.send(error)
        else:
            exchange.send(None)

    def crashed(self) -> list[Done]:
        """Return the rows of images that crashed a subprocess, each once."""
        with self._lock:
            rows, self._crashed = self._crashed, []
            return rows

    def _send(self, message: Done | Ready) -> None:
        self._proven = self._proven or not isinstance(message, Ready)
        self.exchange.send(message)

    def _retry(self, lane: Lane, batch: Batch) -> None:
        """Caption a suspect batch alone."""
        if lane.alone(self._job, batch, self._send) or self.exchange.stopped:
            return
        if not lane.opened:
            raise _unopened(self._job, lane)
        if len(batch) > 1:
            self.exchange.accuse([item] for item in batch)
            return
        with self._lock:
            self._crashed.append((batch, [lane.crash_row(batch[0])]))
            if len(self._crashed) == MAX_CRASHES and not self._proven:  # without rows, a resumed run tries these images again
                reason = f"{MAX_CRASHES} subprocesses crashed, each at another image ({lane.exit_reason})"
                raise ArtifactCrashError(Path(self._job.artifact), reason)

    def _give_up(self, lane: Lane) -> None:
        """Leave the work to the other subprocesses, since memory may be short; raise ArtifactCrashError if they do not work either."""
        if not self.exchange.give_up() or not self._proven:
            raise _unopened(self._job, lane)
        logger.warning("going on with one process less: one that opened %s crashed (%s)", self._job.artifact, lane.exit_reason)


def _unopened(job: CaptionJob, lane: Lane) -> ArtifactCrashError:
    return ArtifactCrashError(Path(job.artifact), f"the subprocess that opened it crashed ({lane.exit_reason})")
