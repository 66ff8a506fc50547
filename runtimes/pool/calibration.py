"""Choose the number of processes, their threads and the batch size by captioning the first images of a job in several ways.

The rows of these images are rows of the job. So a calibration costs the start of the processes, and the images that are slower than they
would be otherwise.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import chain, islice
from time import monotonic

from runtimes.host.facts import read_host
from runtimes.host.memory import anonymous_bytes, available_bytes
from runtimes.pool.exchange import Done
from runtimes.pool.job import Batch, CaptionJob, Item, Ready, Schedule
from runtimes.pool.supervisor import Supervisor

BUDGET_S, BUDGET_SHARE = 5.0, 0.02
"""A calibration takes at most this time, or this share of the job if that is longer. The start of the first process does not count."""
WINDOW_SHARE = 1 / 5
"""Share of that time for the images of one schedule."""
SHORT_S = 15.0
"""A job that takes less time in one process is finished there."""
RAISED_BATCH = 4
"""Batch size that is tried if captions do not depend on it."""
GAIN = 1.02
"""A schedule with more processes or images per run needs more memory, so it must be faster by this factor."""
MEMORY_SHARE = 0.8
"""Part of the available memory that further processes may use."""


def in_batches(items: Iterable[Item], size: int) -> Iterator[Batch]:
    """Yield tuples of `size` items, the last one perhaps shorter."""
    remaining = iter(items)
    while batch := tuple(islice(remaining, size)):
        yield batch


def with_schedule(job: CaptionJob, schedule: Schedule) -> CaptionJob:
    """Return the job of each process of a schedule."""
    return replace(job, threads=schedule.threads, request=replace(job.request, batch_size=schedule.batch_size))


def fixed_schedule(job: CaptionJob, processes: int, reason: str) -> Schedule:
    """Return a schedule with this number of processes, which share the cores unless the job has a number of threads."""
    threads = job.threads or max(1, read_host().cores // processes)
    return Schedule(processes=processes, threads=threads, batch_size=job.request.batch_size, reason=reason)


class ScheduleSearch:
    """Captions the images of a job, and chooses a schedule on the way.

    Args:
        job: The job. Its `threads`, if given, are the threads of each process.
        count: Number of images; None if it is unknown.
        raise_batch: Whether a larger batch than that of the request may be chosen, where captions do not depend on it.
    """

    def __init__(self, job: CaptionJob, count: int | None, *, raise_batch: bool) -> None:
        self._job, self._left, self._raise_batch = job, count, raise_batch
        self._first = fixed_schedule(job, 1, "")
        self._rates: dict[Schedule, float] = {}
        self._ready: Ready | None = None
        self._process_bytes: int | None = None
        self._budget_s = BUDGET_S

    def run(
        self, items: Iterable[Item], on_ready: Callable[[Ready], None], on_schedule: Callable[[Schedule], None], *, proven: bool = False
    ) -> Generator[Done, None, None]:
        """Yield images and rows as `Supervisor.run` does.

        Args:
            items: The images.
            on_ready: See `Supervisor.run`.
            on_schedule: Called once with the chosen schedule, unless the job is short.
            proven: See `Supervisor.run`.

        Raises:
            ToolkitError: See `Supervisor.run`.
        """

        def ready(facts: Ready) -> None:
            self._ready = facts
            on_ready(facts)

        remaining, schedule = iter(items), self._first
        supervisor = Supervisor(schedule.processes)
        try:
            yield from self._measure(supervisor, schedule, remaining, ready, proven=proven)
            begun = monotonic() - self._budget_s * WINDOW_SHARE
            rest_s = None if self._left is None else self._left / max(self._rates[schedule], 1e-9)
            self._budget_s = max(BUDGET_S, BUDGET_SHARE * (rest_s or 0))
            for trial in self._others(rest_s):
                if monotonic() - begun + 2 * self._budget_s * WINDOW_SHARE > self._budget_s:  # it also needs time to start and to end
                    break
                if (item := next(remaining, None)) is None:
                    return
                remaining = chain((item,), remaining)
                supervisor.close()
                schedule, supervisor = trial, Supervisor(trial.processes)
                yield from self._measure(supervisor, schedule, remaining, ready, proven=True)
            if (best := self._best()) != schedule:
                supervisor.close()
                supervisor = Supervisor(best.processes)
            if (item := next(remaining, None)) is not None:
                if rest_s is None or rest_s >= SHORT_S:
                    on_schedule(replace(best, reason=self._reason(best)))
                batches = in_batches(chain((item,), remaining), best.batch_size)
                yield from supervisor.run(with_schedule(self._job, best), batches, ready, proven=True)
        finally:
            supervisor.close()

    def _measure(
        self, supervisor: Supervisor, schedule: Schedule, remaining: Iterator[Item], ready: Callable[[Ready], None], *, proven: bool
    ) -> Iterator[Done]:
        """Caption images for a while and store the rate of the schedule."""
        started: float | None = None

        def until_measured() -> Iterator[Batch]:
            for batch in in_batches(remaining, schedule.batch_size):
                yield batch
                waited = 0.0 if started is None else monotonic() - started
                if waited > self._budget_s or (waited > self._budget_s * WINDOW_SHARE and supervisor.measured()):
                    return

        with closing(supervisor.run(with_schedule(self._job, schedule), until_measured(), ready, proven=proven)) as run:
            for items, rows in run:
                started = started or monotonic()
                self._left = None if self._left is None else self._left - len(items)
                yield items, rows
        self._rates[schedule] = supervisor.images_per_s()
        sizes = [size for process in supervisor.process_ids() if (size := anonymous_bytes(process)) is not None]
        self._process_bytes = max([*sizes, self._process_bytes or 0]) or None

    def _others(self, rest_s: float | None) -> Iterator[Schedule]:
        """Yield the schedules to try, the most promising first."""
        if self._ready is None or self._ready.device != "cpu" or (rest_s is not None and rest_s < SHORT_S):
            return
        cores = read_host().cores
        counts = dict.fromkeys(cores // (self._job.threads or 1) // part for part in (1, 2, 4))
        for processes in counts:
            if processes > 1 and self._fits(processes):
                yield fixed_schedule(self._job, processes, "")
        best, raised = self._best(), RAISED_BATCH
        if self._raise_batch and self._ready.batch_invariant and best.batch_size < raised and self._fits(best.processes, raised):
            yield replace(best, batch_size=raised)

    def _fits(self, processes: int, images_per_run: int = 1) -> bool:
        """Return whether there is memory for more than the first process. A further image of a run needs at most as much as a process."""
        available = available_bytes()
        if available is None or self._process_bytes is None:
            return True
        return (processes * images_per_run - 1) * self._process_bytes <= MEMORY_SHARE * available

    def _best(self) -> Schedule:
        """Return the fastest schedule; of two with about equal rates, the one that was tried first, which needs less memory."""
        best = self._first
        for schedule, rate in self._rates.items():
            if rate > GAIN * self._rates[best]:
                best = schedule
        return best

    def _reason(self, best: Schedule) -> str:
        if len(self._rates) > 1:
            others = ", ".join(f"{rate:.3g} with {schedule}" for schedule, rate in self._rates.items() if schedule != best)
            return f"{self._rates[best]:.3g} images/s; {others}"
        if self._ready is not None and self._ready.device != "cpu":
            return f"the device is {self._ready.device}"
        return "there are cores or memory for one process only"
