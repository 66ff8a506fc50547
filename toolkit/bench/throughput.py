"""Measure images per second of a job by the number of captioners, their threads and the images per run.

Each captioner is a process, and all take batches from one queue, as in `runtimes.pool`. A case with `streams` captions in several threads
of one process, which is how OpenVINO uses several cores. All settings run in turn, and then the next repeat starts.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from queue import SimpleQueue
from time import perf_counter
from typing import Any

from runtimes.errors import ToolkitError
from runtimes.host.memory import proportional_bytes
from runtimes.workers.parent import Worker
from toolkit.bench.cases import Case
from toolkit.bench.runner import host_facts, job_of
from toolkit.datasets import Dataset
from toolkit.records.record import Workload
from toolkit.records.source_commit import source_commit
from toolkit.records.throughput import ThroughputRecord

logger = logging.getLogger(__name__)

IN_FLIGHT = 2
"""Batches that a captioner has: the current one and the next."""
MODULE = "toolkit.bench.throughput_worker"


@dataclass(frozen=True, kw_only=True)
class Shares:
    """How captioners share the cores."""

    processes: int
    threads: int
    batch_size: int


def settings(cores: int, processes: Sequence[int], threads: Sequence[int] | None, batch_sizes: Sequence[int]) -> list[Shares]:
    """Return all settings; without `threads`, the processes share the cores.

    Args:
        cores: Cores that the processes share.
        processes: Numbers of processes.
        threads: Threads per process; None: the cores divided by the processes.
        batch_sizes: Images per run of the model.
    """
    return [
        Shares(processes=count, threads=each, batch_size=size)
        for count in processes
        for each in threads or (max(1, cores // count),)
        for size in batch_sizes
    ]


def measure_throughput(
    cases: Sequence[Case], dataset: Dataset, workload: Workload, shares: Sequence[Shares], on_images: Callable[[str, int], None]
) -> Iterator[ThroughputRecord]:
    """Caption all images with each case and setting, `workload.repeats` times; yield each record as soon as it exists.

    Args:
        cases: From `toolkit.bench.runner.plan`.
        dataset: The images.
        workload: The settings of the search; its threads and its batch size are replaced.
        shares: The settings.
        on_images: Called with a case's name and a number of captioned images.
    """
    host = host_facts()
    for repeat in range(workload.repeats):
        for case in cases:
            for each in shares:
                record = ThroughputRecord(
                    case=case.name,
                    repeat=repeat,
                    host=host,
                    dataset=dataset.name,
                    images=len(dataset.images),
                    forced_tokens=workload.forced_tokens,
                    processes=each.processes,
                    threads=each.threads,
                    batch_size=each.batch_size,
                    measured_at=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
                    commit=source_commit(),
                )
                try:
                    seconds, pss = _measure(case, dataset, workload, each, on_images)
                    yield replace(record, seconds=seconds, pss_bytes=pss)
                except (ToolkitError, _FailedError) as error:
                    logger.warning("%s: %s", case.name, error)
                    yield replace(record, error=str(error))


class _FailedError(Exception):
    """A captioner ended, or an image has no caption."""


def _measure(
    case: Case, dataset: Dataset, workload: Workload, shares: Shares, on_images: Callable[[str, int], None]
) -> tuple[float, int | None]:
    """Return the seconds of the job and the memory of the processes."""
    processes = 1 if case.streams else shares.processes
    streams = shares.processes if case.streams else 1
    job = job_of(case, dataset, replace(workload, threads=shares.threads * streams, batch_size=shares.batch_size), score=False)
    job = replace(job, streams=streams)
    count, size = len(dataset.images), shares.batch_size
    batches = iter([list(range(start, min(start + size, count))) for start in range(0, count, size)])
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(MODULE, threads=job.threads)) for _ in range(processes)]
        replies: SimpleQueue[tuple[int, Any]] = SimpleQueue()
        for number, worker in enumerate(workers):
            thread = threading.Thread(target=_forward, args=(number, worker, job, replies))
            stack.callback(thread.join)
            thread.start()
        stack.push(partial(_end, workers))
        for _ in workers:
            _next(replies)
        begun = perf_counter()
        for worker in workers * (IN_FLIGHT * streams):
            if (batch := next(batches, None)) is not None:
                worker.feed(batch)
        done = 0
        while done < count:
            number, reply = _next(replies)
            if reply["error"]:
                raise _FailedError(reply["error"])
            done += reply["images"]
            on_images(case.name, reply["images"])
            if (batch := next(batches, None)) is not None:
                workers[number].feed(batch)
        seconds = perf_counter() - begun
        sizes = [proportional_bytes(worker.process_id) for worker in workers]
        return seconds, None if None in sizes else sum(each for each in sizes if each is not None)


def _end(workers: Sequence[Worker], kind: type[BaseException] | None, *_: object) -> None:
    """End the request of each worker, and the thread that waits for its replies."""
    for worker in workers:
        if kind is None:
            worker.feed(None)
        else:
            worker.kill()


def _forward(number: int, worker: Worker, job: object, replies: "SimpleQueue[tuple[int, Any]]") -> None:
    """Put the replies of a worker into a queue; at its end, the error."""
    try:
        for reply in worker.request(job):
            replies.put((number, reply))
        replies.put((number, _FailedError(f"its process ended: {worker.exit_reason}")))
    except ToolkitError as error:
        replies.put((number, error))


def _next(replies: "SimpleQueue[tuple[int, Any]]") -> tuple[int, Any]:
    number, reply = replies.get()
    if isinstance(reply, Exception):
        raise reply
    return number, reply
