"""One captioning subprocess and the batches that are in flight there."""

import hashlib
import math
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

from runtimes.artifact.folder import sha256_of
from runtimes.errors import ImageCrashError, ImageTimeoutError
from runtimes.pool.exchange import Done
from runtimes.pool.job import Batch, CaptionJob, Item, Ready
from runtimes.pool.rows import Row
from runtimes.workers.parent import Worker

Source = Callable[[], Batch | None]


class Lane:
    """A subprocess that captions batches in order. It stays open between calls, until it ends early or is closed."""

    def __init__(self) -> None:
        self._worker: Worker | None = None
        self.exit_reason, self.timed_out = "", False
        """Why the last subprocess ended early."""
        self.opened = False
        """Whether the last subprocess loaded the artifact."""
        self._killed = False
        self.images, self.seconds = 0, 0.0
        """Captioned images and the time for them, without the first batch of each call, which is slower."""

    @property
    def process_id(self) -> int | None:
        """Id of the open subprocess."""
        return self._worker.process_id if self._worker else None

    def caption(self, job: CaptionJob, first: Batch | None, more: Source, on_done: Callable[[Done | Ready], None]) -> list[Batch]:
        """Caption batches, and return those that were in flight when the subprocess ended early; an empty list if it did not.

        Args:
            job: The job. If it needs the captioner of the last job, the open subprocess uses it again.
            first: The first batch; None only loads the artifact.
            more: Returns the next batch, or None if there is none.
            on_done: Called with a `Ready`, then with each batch and its rows.

        Raises:
            ToolkitError: The error that the subprocess raised.
        """
        size = job.request.batch_size if first is None else len(first)
        flight = deque([first] if first is not None else ())
        depth, ended = 2 + math.ceil(job.readers / size), first is None
        worker, replies, ready = self._request(job, size)
        if ready is not None:
            on_done(ready)
            _feed(worker, first)
        since = None
        while self.opened and flight:
            # `Captioner.stream` takes 2 * batch_size + workers images, or the end, before it yields the captions of a batch.
            while not ended and len(flight) < depth:
                batch = more()
                ended = batch is None
                flight.extend([batch] if batch is not None else ())
                _feed(worker, batch)
            rows: list[Row] = list(islice(replies, len(flight[0])))
            if len(rows) < len(flight[0]):
                break
            on_done((flight.popleft(), rows))
            now = perf_counter()
            self.images, self.seconds = (
                (self.images, self.seconds) if since is None else (self.images + len(rows), self.seconds + now - since)
            )
            since = now
        _exhaust(replies)
        if worker.exit_reason:
            self.exit_reason, self.timed_out = worker.exit_reason, worker.timed_out
            self._worker = None
        return list(flight)

    def _request(self, job: CaptionJob, size: int) -> tuple[Worker, Iterator[Any], Ready | None]:
        """Send a job to the open subprocess or to a new one; return it, its replies and the first of them, None if it ended early."""
        self._killed = False
        while True:
            reused = self._worker is not None
            worker = self._worker = self._worker or Worker("runtimes.pool.worker", every_progress=True, quiet=False)
            worker.seconds = None if job.timeout_s is None else job.timeout_s * size
            replies = worker.request(job)
            ready = next(replies, None)
            self.opened = ready is not None
            if self.opened or not reused or self._killed:
                return worker, replies, Ready(**ready) if ready is not None else None
            self._worker = None  # it ended after its last job, so this job is not the cause

    def alone(self, job: CaptionJob, batch: Batch, on_done: Callable[[Done | Ready], None]) -> bool:
        """Caption one batch in a new subprocess that reads nothing ahead; return whether the subprocess survived."""
        self.close()
        crashed = self.caption(replace(job, readers=0), batch, lambda: None, on_done)
        self.close()
        return not crashed

    def crash_row(self, item: Item) -> Row:
        """Return the row of an image that ended the subprocess."""
        error = (ImageTimeoutError if self.timed_out else ImageCrashError)(item.name, self.exit_reason)
        row = {"image": item.name, "error": str(error), "code": error.code}
        with suppress(OSError):
            if item.content is not None:
                row["sha256"] = hashlib.sha256(item.content).hexdigest()
            elif Path(item.name).is_file():
                row["sha256"] = sha256_of(Path(item.name))
        return row

    def kill(self) -> None:
        """End the subprocess at once, also from another thread."""
        self._killed = True
        if (worker := self._worker) is not None:
            worker.kill()

    def close(self) -> None:
        """End the subprocess if it is open."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None


def _feed(worker: Worker, batch: Batch | None) -> None:
    """Send the images of a batch as (name, whether there is content) and content; None ends them."""
    for item in batch or ():
        worker.feed((item.name, item.content is not None), item.content or b"")
    if batch is None:
        worker.feed(None)


def _exhaust(replies: Iterator[object]) -> None:
    for _ in replies:
        pass
