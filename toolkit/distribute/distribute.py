"""Caption a data set: list it, find the shards that are left, and caption them here or on a Ray cluster."""

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from runtimes.artifact import json_dataclass
from runtimes.errors import TooManyErrorsError
from runtimes.pool.job import CaptionJob
from runtimes.storage.atomic_write import locked
from toolkit.distribute.part import Part, finished_stats
from toolkit.distribute.run_folder import Run, RunFolder
from toolkit.distribute.shard import Stats
from toolkit.distribute.shard_runner import RunConfig, ShardRunner
from toolkit.distribute.sources.inputs import Inputs
from toolkit.distribute.stores.s3 import S3
from toolkit.distribute.stores.stores import Stores
from toolkit.distribute.summary import summarize
from toolkit.distribute.tally import EVERY_S, MaxErrors, News, Tally

Scheduler: TypeAlias = Callable[[RunConfig, Sequence[int], Callable[[News], None]], Generator[Stats, None, None]]
"""Captions shards and yields their stats, in any order."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What the user asks for."""

    inputs: Inputs
    output: str
    """Absolute path, or `s3://bucket/folder`."""
    base: str
    """Working directory."""
    endpoint: str | None
    job: CaptionJob
    artifact: str
    """Digest of the artifact."""
    shard_size: int
    processes: int
    part: Part
    extend: bool
    retry_errors: frozenset[str]
    max_errors: MaxErrors
    list_only: bool


def distribute(order: Order, scheduler: Scheduler, show: Callable[[str], None]) -> dict[str, Any]:
    """Caption a data set and return the summary.

    Args:
        order: What to do.
        scheduler: Captions the shards that are left.
        show: Called with lines of progress.

    Raises:
        ToolkitError: An input, the output, the artifact or the request is invalid.
    """
    stores = Stores(order.endpoint)
    folder = RunFolder(path=order.output, stores=stores)
    with _output(order, stores):
        run = folder.open(
            settings_of(order),
            order.shard_size,
            order.inputs,
            extend=order.extend,
            on_listed=_Listing(show).add,
        )
        config = config_of(order, run)
        shards, ready = order.part.shards(run), folder.finished_shards()
        folder.remove_leftovers(shards, alone=order.part.count == 1)
        done = dict(finished_stats(run, config, {number: ready[number] for number in shards if number in ready}, stores.of(order.output)))
        todo = [number for number in shards if number not in done or order.retry_errors & done[number].errors.keys()]
        tally = _tally(order, run, done, show)
        started = time.monotonic()
        stopped: TooManyErrorsError | None = None
        if todo and not order.list_only:
            try:
                with closing(scheduler(config, todo, tally.add)) as finished:
                    for stats in finished:
                        done[stats.shard] = stats
            except TooManyErrorsError as error:
                stopped = error
        summary = summarize(run, order.part, done.values(), tally.added, time.monotonic() - started)
        return summary | {"stopped": None if stopped is None else str(stopped)}


def caption_here(config: RunConfig, shards: Sequence[int], on_news: Callable[[News], None]) -> Generator[Stats, None, None]:
    """Caption shards in this process's own subprocesses, in order."""
    with ShardRunner(config) as runner:
        for number in shards:
            yield runner.run(number, on_news)


class _Listing:
    """Shows how many inputs are listed, from time to time."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show, self._inputs, self._shown = show, 0, time.monotonic()

    def add(self) -> None:
        self._inputs += 1
        if (now := time.monotonic()) - self._shown >= EVERY_S:
            self._shown = now
            self._show(f"{self._inputs:,} images listed")


@contextmanager
def _output(order: Order, stores: Stores) -> Iterator[None]:
    """Create the output folder. A local one is locked for this part, and removed if it stays empty."""
    store = stores.of(order.output)
    if order.output.startswith(S3):  # without locks: two processes of the same part would write the same bytes
        store.prepare(order.output)
        yield
        return
    folder = Path(order.output)
    new = [each for each in (folder, *folder.parents) if store.kind(str(each)) is None]  # the deepest first
    store.prepare(order.output)
    try:
        with locked(folder / f"part-{order.part.number}-of-{order.part.count}"):
            yield
    finally:
        with suppress(OSError):
            for each in new:
                each.rmdir()


def settings_of(order: Order) -> dict[str, Any]:
    """Return the settings of `Run`."""
    return {"artifact": order.artifact, **json_dataclass.dump(order.job.request)}


def config_of(order: Order, run: Run) -> RunConfig:
    """Return what a process needs to caption shards of a run."""
    return RunConfig(
        folder=order.output,
        base=order.base,
        endpoint=order.endpoint,
        job=order.job,
        artifact=order.artifact,
        processes=order.processes,
        column=order.inputs.column,
        shard_size=run.shard_size,
        manifests=run.manifests,
        retry_errors=order.retry_errors,
    )


def _tally(order: Order, run: Run, done: Mapping[int, Stats], show: Callable[[str], None]) -> Tally:
    """Return the rows of a part. Of a finished shard, the error rows that are tried again are not done."""
    total = sum(map(run.rows_of, order.part.shards(run)))
    again = {number: sum(count for code, count in stats.errors.items() if code in order.retry_errors) for number, stats in done.items()}
    failed = sum(sum(stats.errors.values()) for stats in done.values()) - sum(again.values())
    return Tally(total, sum(stats.rows for stats in done.values()) - sum(again.values()), failed, order.max_errors, show)
