"""Caption the inputs of one shard after another, and write each shard when all its rows are there."""

import platform
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any, Self

from runtimes.artifact import json_dataclass
from runtimes.errors import DigestError, RequestError
from runtimes.pool.job import CaptionJob, Item, Ready
from runtimes.pool.rows import Row
from runtimes.pool.supervisor import Supervisor
from toolkit.distribute.manifest import ManifestFile, ManifestReader
from toolkit.distribute.reading import read_entries
from toolkit.distribute.shard import SUFFIX, Origin, Stats, encode_shard, read_shard, shard_name, stats_of, write_stats
from toolkit.distribute.shard_rows import ShardRows
from toolkit.distribute.stores.stores import Stores
from toolkit.distribute.tally import News

READ_SHARDS = 8
"""Finished shards that are kept in memory, because rows of later shards have equal bytes."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What a process needs to caption shards of a run."""

    folder: str
    """Output folder."""
    base: str
    """Working directory of the process that listed the inputs: relative names start there."""
    endpoint: str | None
    """Address of the S3 server."""
    job: CaptionJob
    artifact: str
    """Digest of the artifact."""
    processes: int
    """Captioning subprocesses."""
    column: str
    """Column of the images in Parquet files."""
    shard_size: int
    manifests: tuple[ManifestFile, ...]
    retry_errors: frozenset[str]
    """Codes of error rows of finished shards whose images are captioned again."""

    @property
    def shards(self) -> str:
        """Folder of the shards."""
        return f"{self.folder}/shards"

    def manifest_of(self, shard: int) -> ManifestFile:
        """Return the file of the manifest that lists a shard."""
        return next(file for file in reversed(self.manifests) if file.first_shard <= shard)

    def origin(self, shard: int) -> Origin:
        """Return what the rows of a shard depend on."""
        request = json_dataclass.dump(self.job.request)
        return Origin(shard=shard, manifest=self.manifest_of(shard).digest, artifact=self.artifact, settings=request)


class ShardRunner:
    """Captions shards in subprocesses that stay open. As a context manager, it ends them.

    Args:
        config: The run.
    """

    def __init__(self, config: RunConfig) -> None:
        self._config, self._stores = config, Stores(config.endpoint, config.base)
        self._output = self._stores.of(config.folder)
        self._supervisor = Supervisor(config.processes)
        self._machine: dict[str, Any] = {}
        self._finished_rows = lru_cache(READ_SHARDS)(self._read_finished)
        self._manifest = lru_cache(READ_SHARDS)(lambda file: ManifestReader(file, f"{config.folder}/{file.file}", self._output))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._supervisor.close()

    def run(self, number: int, on_news: Callable[[News], None]) -> Stats:
        """Caption a shard and write it.

        Args:
            number: The shard. If it is finished, only its rows with an error of `retry_errors` are captioned, and it is replaced.
            on_news: Called with the rows that were added since the last call. It may raise an error to stop.

        Raises:
            OutputError: The shard cannot be written.
            ToolkitError: The artifact or the request is invalid.
        """
        started, config = perf_counter(), self._config
        shard = self._manifest(config.manifest_of(number)).shard(number)
        kept = {position: row for position, row in enumerate(self._finished_rows(number) or ()) if row["code"] not in config.retry_errors}
        rows = ShardRows(shard, kept, self._earlier_row)
        contents = read_entries(rows.missing(), self._stores, config.column, config.job.readers)
        with closing(contents), closing(self._supervisor.run(config.job, self._batches(rows.items(contents)), self._on_ready)) as done:
            for batch, captions in done:
                rows.add(batch, captions)
                on_news(rows.news())
        finished, origin = rows.finished(), config.origin(number)
        on_news(rows.news())
        content = encode_shard(finished, origin)
        self._output.write(f"{config.shards}/{shard_name(number)}{SUFFIX}", content)
        stats = stats_of(finished, origin, content, seconds=perf_counter() - started, machine=self._machine)
        write_stats(config.shards, stats, self._output)
        self._finished_rows.cache_clear()
        return stats

    def _batches(self, items: Iterator[Item]) -> Iterator[list[Item]]:
        while batch := list(islice(items, self._config.job.request.batch_size)):
            yield batch

    def _on_ready(self, ready: Ready) -> None:
        if ready.artifact != self._config.artifact:
            raise DigestError(Path(self._config.job.artifact), ready.artifact, self._config.artifact)
        if self._config.job.request.batch_size > 1 and not ready.batch_invariant:  # rows would depend on which shards are finished
            raise RequestError(f"{self._config.job.artifact}: its captions depend on the number of images per run; use --batch-size 1")
        threads, processes = self._config.job.threads, self._config.processes
        self._machine = {
            "host": platform.node(),
            "device": ready.device,
            "processes": processes,
            "threads": threads,
            "versions": ready.versions,
        }

    def _read_finished(self, number: int) -> list[dict[str, Any]] | None:
        """Return the rows of a finished shard of this run; None if it is not finished."""
        name = shard_name(number) + SUFFIX
        if self._output.kind(f"{self._config.shards}/{name}") is None:
            return None
        rows, origin = read_shard(self._config.shards, number, self._output)
        return rows if origin == json_dataclass.dump(self._config.origin(number)) else None

    def _earlier_row(self, index: int) -> Row | None:
        """Return a row of an earlier shard by its index, if that shard is finished."""
        file = next(file for file in reversed(self._config.manifests) if file.start <= index)
        shard, position = divmod(index - file.start, self._config.shard_size)
        rows = self._finished_rows(file.first_shard + shard)
        return None if rows is None else rows[position]
