"""A part of a run: every n-th shard, for machines that share no scheduler."""

from collections.abc import Mapping
from dataclasses import dataclass

from runtimes.errors import RequestError
from runtimes.images.prefetch import read_ahead
from toolkit.distribute.run_folder import Run
from toolkit.distribute.shard import Origin, Stats, read_shard, read_stats, settings_digest, shard_name, stats_of, write_stats
from toolkit.distribute.shard_runner import RunConfig
from toolkit.distribute.stores.store import Store

READERS = 16
"""Threads that read stats files: each request to an object store waits for an answer."""


@dataclass(frozen=True)
class Part:
    """The part `number` of `count`; numbers begin at 1."""

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Part":
        """Read `3/16`.

        Raises:
            ValueError: The text is no part.
        """
        number, count = map(int, text.split("/"))
        if not 1 <= number <= count:
            raise ValueError(text)
        return cls(number, count)

    def shards(self, run: Run) -> range:
        """Return the numbers of the shards of this part."""
        return range(self.number - 1, run.shards, self.count)


def finished_stats(run: Run, config: RunConfig, shards: Mapping[int, int], store: Store) -> Mapping[int, Stats]:
    """Return the stats of finished shards. A stats file that is missing, or declares another size, is made from its shard.

    Args:
        run: The run.
        config: How it captions.
        shards: Number → size of the shard's file in bytes.
        store: The store of the output folder.

    Raises:
        RequestError: A shard belongs to another run.
        DatasetError: A shard is damaged.
    """

    def stats(number: int) -> Stats:
        stats, origin = read_stats(config.shards, number, store), config.origin(number)
        file_name = f"{config.shards}/{shard_name(number)}.parquet"
        if stats is None or stats.bytes != shards[number]:  # a damaged shard, or one that was replaced before its stats
            rows, origin_fields = read_shard(config.shards, number, store)
            with store.open(file_name) as file:
                content = file.read()
            stats = stats_of(rows, Origin(**origin_fields), content)
            write_stats(config.shards, stats, store)
        if (stats.shard, stats.manifest, stats.settings, stats.rows) != (
            number,
            origin.manifest,
            settings_digest(origin),
            run.rows_of(number),
        ):
            raise RequestError(f"{file_name}: is a shard of another run; move it away, or choose another --output")
        return stats

    return dict(zip(shards, read_ahead(stats, shards, READERS, ahead=4 * READERS), strict=True))
