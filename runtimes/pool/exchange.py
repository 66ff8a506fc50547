"""What the threads of a supervisor share: the batches that are left, the batches that may have crashed a subprocess, and the rows."""

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from queue import SimpleQueue
from typing import TypeAlias

from runtimes.pool.job import Batch, Ready
from runtimes.pool.rows import Row

Done: TypeAlias = tuple[Batch, list[Row]]
"""Images and their rows."""


class Exchange:
    """Hands out batches and collects rows. All methods may be called by several threads."""

    def __init__(self, batches: Iterable[Batch], threads: int, ahead: int) -> None:
        """Set the source.

        Args:
            batches: Consumed one by one.
            threads: Number of threads that take batches.
            ahead: Largest number of batches that are handed out and not received yet.
        """
        self._batches, self._source = iter(batches), threading.Lock()
        self._threads = self._working = threads
        self._permits = threading.Semaphore(ahead)
        self._suspects: deque[Batch] = deque()
        self._lock = threading.Lock()
        self._messages: SimpleQueue[Done | Ready | BaseException | None] = SimpleQueue()
        self.stopped = False

    def fresh(self) -> Batch | None:
        """Return the next batch, or None if there is none. Waits while too many rows are not received.

        Raises:
            BaseException: What the iterator of batches raises.
        """
        self._permits.acquire()
        with self._source:
            batch = None if self.stopped else next(self._batches, None)
        if batch is None:
            self._permits.release()
        return batch

    def suspect(self) -> Batch | None:
        """Return the next batch that must run in a subprocess of its own, or None."""
        with self._lock:
            return self._suspects.popleft() if self._suspects else None

    def accuse(self, batches: Iterable[Batch]) -> None:
        """Add batches that may have crashed a subprocess."""
        with self._lock:
            self._suspects.extend(batches)

    def leave(self) -> bool:
        """End the work of the calling thread if no suspect is left; return whether it has ended."""
        with self._lock:
            self._working -= not self._suspects
            return not self._suspects

    def give_up(self) -> bool:
        """End the work of the calling thread; return whether other threads work on the suspects."""
        with self._lock:
            self._working -= 1
            return self._working > 0

    def send(self, message: Done | Ready | BaseException | None) -> None:
        """Send rows, the start of a subprocess, an error, or None at the end of a thread."""
        self._messages.put(message)

    def messages(self) -> Iterator[Done | Ready]:
        """Yield the messages of the threads until all have ended; raise the first error."""
        threads = self._threads
        while threads:
            message = self._messages.get()
            if isinstance(message, BaseException):
                raise message
            if message is None:
                threads -= 1
                continue
            yield message
            if not isinstance(message, Ready):
                self._permits.release()

    def stop(self) -> None:
        """End the batches, and wake the threads that wait for one."""
        self.stopped = True
        self._permits.release(self._threads)
