"""The model process, a worker of `runtimes.workers`: one thread reads images ahead, and the main thread runs the model.

All native code that sees a client's bytes runs here, so a crash ends this process and not the server. The number of images ahead is
bounded by the supervisor, which sends only as many as fit.
"""

import logging
import signal
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from runtimes.artifact import json_dataclass
from runtimes.artifact.folder import open_artifact
from runtimes.artifact.manifest import MANIFEST_NAME
from runtimes.artifact.verified_files import open_verified
from runtimes.errors import EnvironmentFailedError, GoldenError, RequestError, ToolkitError, UnknownNameError
from runtimes.images.reading import PreparedImage, read_pixels
from runtimes.loading import load
from runtimes.pool.rows import Row
from runtimes.workers.child import Feed, Send, serve_feed
from runtimes.workers.logs import log_to_stderr
from toolkit.serve.model.messages import Alive, Check, Done, ItemResult, Loaded, WorkItem
from toolkit.serve.settings import ModelJob
from toolkit.serve.tasks import CAPTION, TASKS

if TYPE_CHECKING:
    from runtimes.decoding.search import PhaseTimer
    from runtimes.tasks.loaded_model import LoadedModel
    from runtimes.tasks.text_generator import TextGenerator

logger = logging.getLogger(__name__)

SAMPLE = "cat.jpg"
"""The image of `toolkit.sample` that checks an artifact without golden results."""


ALIVE_EVERY_S = 0.5
"""Seconds between two signs of life of a run, which are sent between its tokens."""


class Abandoned(Exception):  # noqa: N818 - a signal from the timer to the caller of the search, not an error
    """Nobody waits for any image of the run."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """An item whose image was read."""

    item: WorkItem
    image: PreparedImage | ToolkitError
    read_s: float


def run(job: ModelJob, send: Send, feed: Feed) -> None:
    """Load the model, check it, and run the items of the feed until it ends."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # service managers send it to all processes; the server ends this one after its drain
    log_to_stderr(job.log_level)
    begun = time.perf_counter()
    arguments: dict[str, Any] = {"device": job.device, "threads": job.threads, "max_pixels": job.max_pixels}
    model: LoadedModel = load(job.artifact, task=_task_of(Path(job.artifact)), provider_options=job.provider_options, **arguments)
    loaded = time.perf_counter()
    check, run_s = check_model(model, job)
    finished = time.perf_counter()
    info = json_dataclass.dump(model.info())
    send(json_dataclass.dump(Loaded(info=info, check=check, load_s=loaded - begun, check_s=finished - loaded, run_s=run_s)))
    ModelLoop(model, job, send).run(feed)


def _task_of(path: Path) -> Any:  # noqa: ANN401 - a literal of `load`
    """Return the task of an artifact; a folder of artifacts is loaded for captions."""
    if not (path / MANIFEST_NAME).is_file():
        return "caption"
    if (task := open_artifact(path).manifest.task) not in TASKS:
        raise UnknownNameError("task", task, TASKS)
    return task


def check_model(model: "LoadedModel", job: ModelJob) -> tuple[Check, float]:
    """Replay the golden results of the artifact, or run the sample image without them. Then time a run.

    Returns:
        The check, and the seconds of a run of one image.

    Raises:
        GoldenError: Results on this machine differ from the golden ones, or the sample image fails.
        RequestError: Results depend on the batch size, and the job allows more than one image per run.
    """
    from runtimes.pool.batch_invariance import is_batch_invariant
    from runtimes.verification.golden_tasks import GOLDEN_TASKS, read_golden, replay_function

    assert model.reload is not None
    path, spec = model.reload[1][0], TASKS[model.manifest.task]
    if job.max_batch > 1 and not is_batch_invariant(cast("TextGenerator[Any, Any]", model), CAPTION):
        raise RequestError(f"{path}: its results depend on the number of images per run; use --max-batch 1")
    result = None
    if model.manifest.task in GOLDEN_TASKS:
        with open_verified(open_artifact(path), verify=False) as opened:  # `load` has compared the hashes
            if (golden := read_golden(opened)) is not None:
                result = replay_function(model.manifest.task)(model, golden, opened)
    if result is not None and result.differences:
        raise GoldenError(path, "; ".join(result.differences))
    sample = PreparedImage(read_pixels(files("toolkit.sample").joinpath(SAMPLE).read_bytes(), model.manifest.image, SAMPLE))
    for count in (1, job.max_batch):  # the memory of the largest batch is needed later too
        rows = spec.rows(model, [SAMPLE] * count, [sample] * count, spec.sample, lambda phase, seconds: None)
        if "error" in rows[0]:
            raise GoldenError(path, f"the sample image fails: {rows[0]['error']}")
    begun = time.perf_counter()
    spec.rows(model, [SAMPLE], [sample], spec.sample, lambda phase, seconds: None)
    run_s = time.perf_counter() - begun
    if result is None:
        return Check(kind="sample image", results=1, equal=1), run_s
    return Check(kind="golden results", results=result.captions, equal=result.equal), run_s


class ModelLoop:
    """Reads images in a thread and runs the model on those that are read."""

    def __init__(self, model: "LoadedModel", job: ModelJob, send: Send) -> None:
        self._model, self._send = model, send
        self._max_batch, self._max_pixels = job.max_batch, job.max_pixels
        self._changed = threading.Condition()
        self._prepared: deque[Prepared] = deque()
        self._unfinished: set[int] = set()
        self._cancelled: set[int] = set()
        self._failure: BaseException | None = None

    def run(self, feed: Feed) -> None:
        """Run until the process ends.

        Raises:
            BaseException: What the thread that reads the feed raised.
        """
        threading.Thread(target=self._receive, args=(feed,), daemon=True).start()
        while batch := self._next_batch():
            self._send(json_dataclass.dump(Done(results=tuple(self._results(batch)))))
        if self._failure is not None:
            raise self._failure

    def _receive(self, feed: Feed) -> None:
        try:
            with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as reading:
                for value, content in feed:
                    if "cancel" in value:
                        self._cancelled |= {value["cancel"]} & self._unfinished
                    else:
                        item = WorkItem(**value)
                        self._unfinished.add(item.id)
                        reading.submit(self._read, item, content).add_done_callback(self._add)
        except BaseException as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            self._failure = error
            self._changed.notify()

    def _add(self, reading: Any) -> None:  # noqa: ANN401 - Future[Prepared]
        if (error := reading.exception()) is not None:
            self._fail(error)
            return
        with self._changed:
            self._prepared.append(reading.result())
            self._changed.notify()

    def _read(self, item: WorkItem, content: bytes) -> Prepared:
        begun = time.perf_counter()
        image: PreparedImage | ToolkitError
        try:
            if self._given_up(item):
                raise RequestError("nobody waits for it")
            pixels = read_pixels(content, self._model.manifest.image, item.name, max_pixels=self._max_pixels)
            image = PreparedImage(pixels)
        except ToolkitError as error:
            image = error.with_traceback(None)
        except MemoryError:
            image = EnvironmentFailedError(item.name, "not enough memory")
        return Prepared(item=item, image=image, read_s=time.perf_counter() - begun)

    def _given_up(self, item: WorkItem) -> bool:
        return item.id in self._cancelled or time.monotonic() > item.deadline

    def _next_batch(self) -> list[Prepared]:
        """Wait for an image, and return it with those behind it that have the same options; empty if the feed has failed."""
        with self._changed:
            self._changed.wait_for(lambda: self._prepared or self._failure)
            if not self._prepared:
                return []
            batch = [self._prepared.popleft()]
            while self._prepared and len(batch) < self._max_batch and _same_run(self._prepared[0], batch[0]):
                batch.append(self._prepared.popleft())
            return batch

    def _results(self, batch: list[Prepared]) -> list[ItemResult]:
        alive = started = time.monotonic()
        seconds = {"encode": 0.0, "decode": 0.0}

        def timer(phase: str, elapsed: float) -> None:
            nonlocal alive
            self._require_waiting(batch)
            if (now := time.monotonic()) - alive >= ALIVE_EVERY_S:
                alive = now
                self._send(json_dataclass.dump(Alive(alive=len(batch))))
            if phase in PHASES:
                seconds[PHASES[phase]] += elapsed

        rows: list[Any]
        try:
            self._require_waiting(batch)
            rows = self._rows(batch, timer)
        except Abandoned:
            rows = [None] * len(batch)
        except ToolkitError as error:
            rows = [{"image": each.item.name, "error": str(error), "code": error.code} for each in batch]
        for each in batch:
            self._unfinished.discard(each.item.id)
            self._cancelled.discard(each.item.id)
        return [
            ItemResult(
                id=each.item.id, row=row, read_s=each.read_s, started=started, encode_s=seconds["encode"], decode_s=seconds["decode"]
            )
            for each, row in zip(batch, rows, strict=True)
        ]

    def _require_waiting(self, batch: list[Prepared]) -> None:
        if all(self._given_up(each.item) for each in batch):
            raise Abandoned

    def _rows(self, batch: list[Prepared], timer: "PhaseTimer") -> list[Row]:
        images = []
        for each in batch:
            if isinstance(each.image, ToolkitError):
                raise each.image
            images.append(each.image)
        task = TASKS[batch[0].item.task]
        options, problems = json_dataclass.load(type(task.sample), batch[0].item.options)
        assert options is not None, problems
        return task.rows(self._model, [each.item.name for each in batch], images, options, timer)


PHASES = {"encode": "encode", "first_token": "decode", "token": "decode", "loop": "decode"}
"""Phase of `PhaseTimer` → field of an `ItemResult`."""


def _same_run(a: Prepared, b: Prepared) -> bool:
    """Return whether two items can share a run of the model. An image that was not read has a run of its own."""
    unread = isinstance(a.image, ToolkitError) or isinstance(b.image, ToolkitError)
    return not unread and (a.item.task, a.item.options) == (b.item.task, b.item.options)


if __name__ == "__main__":
    serve_feed(ModelJob, run)
