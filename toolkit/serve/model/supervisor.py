"""Supervise the model process: send it items, restart it when it ends, and know how long the queued work takes.

The process has few items at once: those of one run, and those that it reads ahead. When it ends early, these items are suspects. They are
tried again one at a time, and an item whose process ends twice gets the row of an `ImageCrashError`. The event loop makes all changes of
state; a thread reads the process's messages, another one writes to it.
"""

import asyncio
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from runtimes.errors import ArtifactCrashError, ImageCrashError, ToolkitError, first_line
from runtimes.workers.parent import Worker
from toolkit.serve.model.messages import Done, ItemResult, Loaded, WorkItem, parsed
from toolkit.serve.model.usual_times import UsualTimes
from toolkit.serve.run_size import RunSize
from toolkit.serve.settings import ModelJob

logger = logging.getLogger(__name__)

MODULE = "toolkit.serve.model.process"
READ_AHEAD = 2
"""Images that the model process reads or has read, besides those of a run."""
MAX_FAILED_STARTS = 3
STALL_FACTOR = 10
"""A run that generates no token for this many times the usual time of a run is a stall."""
MIN_STALL_S = 2.0
"""A shorter run is no stall: the machine may have other work."""
PATIENCE_S = 10.0
"""A process that is busy with an item this long after its deadline is killed."""
WATCH_S = 0.5
FIRST_START_S = 3.0
"""Start time of the model before it is known."""

Stage: TypeAlias = Literal["loading", "ready", "restarting", "failed"]


@dataclass(eq=False, kw_only=True)
class Work:
    """An item in the queue or in the model process."""

    message: WorkItem
    content: bytes
    size: RunSize
    result: "asyncio.Future[ItemResult]"
    queued: float = field(default_factory=time.monotonic)
    sent: float = 0.0
    crashes: int = 0
    """Times that the model process ended while it had the item."""


@dataclass(frozen=True, kw_only=True)
class _Ended:
    """Why a model process ended."""

    reason: str = ""
    error: ToolkitError | None = None


@dataclass(frozen=True, kw_only=True)
class ModelObserver:
    """Functions that are called when the model process changes."""

    on_loaded: Callable[[Loaded], None] = lambda loaded: None
    """Called for each process that is ready."""
    on_failure: Callable[[ToolkitError], None] = lambda error: None
    """Called once, with the error because of which no process can be started. No request is answered any more."""


class ModelSupervisor:
    """The queue of items and the process that runs them.

    Args:
        job: What the process loads.
        observer: Functions to call.
    """

    def __init__(self, job: ModelJob, observer: ModelObserver) -> None:
        self._job, self._observer = job, observer
        self.stage: Stage = "loading"
        self.loaded: Loaded | None = None
        """What the last process replied when it was ready."""
        self.starts = 0
        self.runs = 0
        """Runs of the model, of all processes."""
        self._usual: UsualTimes | None = None
        self._queue: deque[Work] = deque()
        self._in_flight: dict[int, Work] = {}
        self._sizes: Counter[RunSize] = Counter()  # of all items in the queue and in flight
        self._worker: Worker | None = None
        self._start_s, self._starting_since = FIRST_START_S, time.monotonic()
        self._progress = time.monotonic()  # when the process replied last, or got its first item
        self._alive = self._progress  # when a run sent its last sign of life
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="to-model")

    @property
    def process_id(self) -> int | None:
        """Id of the model process; None between two processes."""
        return None if self._worker is None else self._worker.process_id

    @property
    def items(self) -> int:
        """Number of items in the queue and in the process."""
        return self._sizes.total()

    @property
    def image_s(self) -> float:
        """Usual seconds of an image with one decoder row and no least length; 0 before the model was loaded."""
        return 0.0 if self._usual is None else self._usual.of(RunSize())

    def wait_s(self) -> float:
        """Return the seconds until the work in the queue and in the process is done."""
        now = time.monotonic()
        starting = max(0.0, self._start_s - (now - self._starting_since)) if self.stage != "ready" else 0.0
        if self._usual is None or not self._sizes:
            return starting
        work = sum(count * self._usual.of(size) for size, count in self._sizes.items())
        if self._in_flight:
            head = next(iter(self._in_flight.values()))
            work -= min(self._usual.of(head.size), now - self._progress)
        return starting + work

    def stalled(self) -> bool:
        """Return whether the current run has generated no token for `STALL_FACTOR` times the usual time of a run."""
        if not self._in_flight or self._usual is None:
            return False
        head = next(iter(self._in_flight.values()))
        usual = self._usual.of(RunSize(head.size.rows)) * self._job.max_batch
        return time.monotonic() - max(self._progress, self._alive) > max(MIN_STALL_S, STALL_FACTOR * usual)

    def submit(self, works: Iterable[Work]) -> None:
        """Add items to the queue."""
        for work in works:
            self._queue.append(work)
            self._sizes[work.size] += 1
        self._dispatch()

    def abandon(self, works: Iterable[Work]) -> None:
        """Drop items for which nobody waits any more, also between the tokens of a run."""
        for work in works:
            if work.result.done():
                continue
            work.result.cancel()
            if work.message.id in self._in_flight:
                self._feed({"cancel": work.message.id})
            else:
                self._queue.remove(work)
                self._forget(work)

    async def run(self) -> None:
        """Keep a model process running. Return after `ModelObserver.on_failure`; when cancelled, kill the process."""
        watching = asyncio.create_task(self._watch())
        failed_starts = 0
        try:
            while True:
                ended, was_ready = await self._run_process()
                failed_starts = 0 if was_ready else failed_starts + 1
                invalid = ended.error is not None and self.loaded is None  # the same error would follow
                if invalid or failed_starts == MAX_FAILED_STARTS:
                    self._fail(ended.error or ArtifactCrashError(Path(self._job.artifact), f"its process ended ({ended.reason})"))
                    return
                logger.warning("the model process ended (%s); starting it again", ended.error or ended.reason)
                self._requeue(ended.reason)
                await asyncio.sleep(failed_starts)
        except Exception as error:
            logger.critical("the supervisor of the model failed", exc_info=True)
            self._fail(ArtifactCrashError(Path(self._job.artifact), f"its supervisor failed ({first_line(error)})"))
        finally:
            watching.cancel()
            self._writer.shutdown(wait=False, cancel_futures=True)

    async def _run_process(self) -> tuple[_Ended, bool]:
        """Run one process to its end; return why it ended, and whether it was ready."""
        self.stage = "loading" if self.loaded is None else "restarting"
        self.starts += 1
        self._starting_since = time.monotonic()
        messages: asyncio.Queue[Any] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        reader = threading.Thread(target=_read_messages, args=(self._job, loop, messages), daemon=True)
        reader.start()
        ready = False
        try:
            while not isinstance(message := await messages.get(), _Ended):
                if isinstance(message, Worker):
                    self._worker = message
                elif ready and "alive" in message:
                    self._alive = time.monotonic()
                elif ready:
                    self._finish(parsed(Done, message))
                else:
                    ready = True
                    self._become_ready(parsed(Loaded, message))
            return message, ready
        finally:
            if self._worker is not None:
                self._worker.kill()
                self._worker = None
                await asyncio.to_thread(reader.join)  # it waits for the process, so that none is left

    def _become_ready(self, loaded: Loaded) -> None:
        self.loaded, self.stage = loaded, "ready"
        self._start_s = time.monotonic() - self._starting_since
        self._usual = self._usual or UsualTimes(loaded.run_s)
        self._observer.on_loaded(loaded)
        self._dispatch()

    def _dispatch(self) -> None:
        """Send items to the process while it has room. A suspect is sent alone."""
        suspect = any(work.crashes for work in (*self._in_flight.values(), *list(self._queue)[:1]))
        room = 1 if suspect else self._job.max_batch + READ_AHEAD
        while self.stage == "ready" and self._queue and len(self._in_flight) < room:
            work = self._queue.popleft()
            now = time.monotonic()
            self._progress = self._progress if self._in_flight else now
            work.sent = now
            self._in_flight[work.message.id] = work
            self._feed(asdict(work.message), work.content)

    def _feed(self, message: dict[str, Any], content: bytes = b"") -> None:
        if self._worker is not None:
            self._writer.submit(self._worker.feed, message, content)

    def _finish(self, done: Done) -> None:
        """Record the time of a run and set the results of its items."""
        assert self._usual is not None
        now, self.runs = time.monotonic(), self.runs + 1
        works = [self._in_flight.pop(result.id) for result in done.results]
        begun = max(self._progress, min(work.sent for work in works))
        self._progress = now
        for work, result in zip(works, done.results, strict=True):
            if result.row is not None and "error" not in result.row:
                self._usual.add(work.size, (now - begun) / len(works))
            self._forget(work)
            if not work.result.done():
                work.result.set_result(result)
        self._dispatch()

    def _requeue(self, reason: str) -> None:
        """Put the items of a process that has ended in front of the queue, or give them their error row."""
        for work in reversed(self._in_flight.values()):
            work.crashes += 1
            if work.crashes == 1 and not work.result.done():
                self._queue.appendleft(work)
                continue
            self._forget(work)
            if not work.result.done():
                error = ImageCrashError(work.message.name, reason)
                row = {"image": work.message.name, "error": str(error), "code": error.code}
                work.result.set_result(ItemResult(id=work.message.id, row=row, started=work.sent))
        self._in_flight.clear()

    def _fail(self, error: ToolkitError) -> None:
        self.stage = "failed"
        for work in (*self._in_flight.values(), *self._queue):
            if not work.result.done():
                work.result.set_exception(error)
        self._observer.on_failure(error)

    def _forget(self, work: Work) -> None:
        self._sizes[work.size] -= 1
        self._sizes += Counter()  # removes counts of 0

    async def _watch(self) -> None:
        """Kill a process that does not abandon an item."""
        while True:
            await asyncio.sleep(WATCH_S)
            late = time.monotonic() - PATIENCE_S
            if self._worker is not None and any(work.message.deadline < late for work in self._in_flight.values()) and self.stalled():
                logger.warning("the model process does not end a run whose time is over; killing it")
                self._worker.kill()


def _read_messages(job: ModelJob, loop: asyncio.AbstractEventLoop, messages: "asyncio.Queue[Any]") -> None:
    """Start a process, and put it and its messages into a queue; at its end, an `_Ended`."""

    def put(message: object) -> None:
        with suppress(RuntimeError):  # the loop is closed: the server has ended
            loop.call_soon_threadsafe(messages.put_nowait, message)

    try:
        with Worker(MODULE, quiet=False) as worker:
            put(worker)
            for message in worker.request(job):
                put(message)
        put(_Ended(reason=worker.exit_reason))
    except ToolkitError as error:
        put(_Ended(error=error))
    except OSError as error:  # no process can be started now
        put(_Ended(reason=str(error)))
