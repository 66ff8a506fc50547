"""A shard of the output: a Parquet file with one row per input, and a stats file beside it.

The Parquet file is complete when it appears, and then the shard is finished. The stats file is written after it; if a process ends between
the two, the next run makes it from the Parquet file. Equal rows have equal bytes, with one version of pyarrow.
"""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from runtimes.artifact import json_dataclass
from runtimes.errors import DatasetError, first_line
from runtimes.pool.rows import Row
from toolkit.distribute.stores.s3 import import_pyarrow
from toolkit.distribute.stores.store import Store

METADATA_KEY: Final = b"blip-toolkit"
"""Key of the metadata of a Parquet file: JSON with the fields of `Origin`."""
SUFFIX: Final = ".parquet"
CAPTION_FIELDS: Final = ("caption", "token_ids", "score", "finish_reason")


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What the rows of a shard depend on."""

    shard: int
    manifest: str
    """Digest of the file of the manifest."""
    artifact: str
    """Digest of the artifact."""
    settings: Mapping[str, Any]
    """The fields of `Request`."""


@dataclass(frozen=True, kw_only=True)
class Stats:
    """The stats file of a shard."""

    shard: int
    manifest: str
    settings: str
    """sha256 of the settings and the artifact's digest."""
    rows: int
    errors: Mapping[str, int]
    """Code → number of error rows."""
    duplicates: int
    """Rows with the caption of an earlier row, whose bytes are equal."""
    tokens: int
    """Tokens of all captions that this shard generated."""
    bytes: int
    sha256: str
    """Hash of the Parquet file."""
    seconds: float | None = None
    """Time to caption the shard; None if the stats were made later."""
    machine: Mapping[str, Any] = field(default_factory=dict)
    """Host, device, threads and versions of libraries."""


def shard_name(number: int) -> str:
    """Return the name of a shard without its suffix."""
    return f"{number:06}"


def settings_digest(origin: Origin) -> str:
    """Return the hash of what all shards of a run have in common."""
    return hashlib.sha256(json_dataclass.canonical_json([origin.artifact, origin.settings])).hexdigest()


def encode_shard(rows: Sequence[Row], origin: Origin) -> bytes:
    """Return the bytes of a shard's Parquet file."""
    import_pyarrow()
    from pyarrow import table
    from pyarrow.parquet import write_table

    schema = _schema().with_metadata({METADATA_KEY: json_dataclass.canonical_json(json_dataclass.dump(origin))})
    content = io.BytesIO()
    write_table(table({name: [row.get(name) for row in rows] for name in schema.names}, schema=schema), content, compression="zstd")
    return content.getvalue()


def read_shard(folder: str, number: int, store: Store) -> tuple[list[dict[str, Any]], Mapping[str, Any]]:
    """Return the rows of a shard and the fields of its `Origin`.

    Raises:
        DatasetError: The file is damaged or no shard.
    """
    import_pyarrow()
    from pyarrow import ArrowException
    from pyarrow.parquet import read_table

    path = f"{folder}/{shard_name(number)}{SUFFIX}"
    try:
        with store.open(path) as file:
            table = read_table(file)
        origin = json.loads(table.schema.metadata[METADATA_KEY])
        assert isinstance(origin, dict)
        return table.to_pylist(), origin
    except (ArrowException, OSError, ValueError, TypeError, KeyError, AssertionError) as error:
        raise DatasetError(path, f"is no shard of this toolkit: {first_line(error)}; move it away to caption its images again") from error


def stats_of(
    rows: Sequence[Row], origin: Origin, content: bytes, seconds: float | None = None, machine: Mapping[str, Any] | None = None
) -> Stats:
    """Return the stats of a shard.

    Args:
        rows: Its rows.
        origin: What they depend on.
        content: The bytes of the Parquet file.
        seconds: Time to caption it.
        machine: Where it was captioned.
    """
    generated = (row for row in rows if row.get("duplicate_of") is None)
    return Stats(
        shard=origin.shard,
        manifest=origin.manifest,
        settings=settings_digest(origin),
        rows=len(rows),
        errors=dict(sorted(Counter(row["code"] for row in rows if row.get("code") is not None).items())),
        duplicates=sum(row.get("duplicate_of") is not None for row in rows),
        tokens=sum(len(row.get("token_ids") or ()) for row in generated),
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        seconds=seconds,
        machine=machine or {},
    )


def write_stats(folder: str, stats: Stats, store: Store) -> None:
    """Write the stats file of a shard.

    Raises:
        OutputError: It cannot be written.
    """
    store.write(f"{folder}/{shard_name(stats.shard)}.json", json.dumps(json_dataclass.dump(stats), indent=1).encode() + b"\n")


def read_stats(folder: str, number: int, store: Store) -> Stats | None:
    """Return the stats of a shard, or None if the file is missing or damaged."""
    try:
        with store.open(f"{folder}/{shard_name(number)}.json") as file:
            stats, _ = json_dataclass.load(Stats, json.loads(file.read()))
    except (OSError, ValueError):
        return None
    return stats


def _schema() -> Any:  # noqa: ANN401 - pyarrow is untyped
    import pyarrow as pa

    caption = [("caption", pa.string()), ("token_ids", pa.list_(pa.int32())), ("score", pa.float64()), ("finish_reason", pa.string())]
    return pa.schema(
        [
            ("index", pa.int64()),
            ("image", pa.string()),
            *caption,
            ("alternatives", pa.list_(pa.struct(caption))),
            ("duplicate_of", pa.int64()),
            ("error", pa.string()),
            ("code", pa.string()),
            ("sha256", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
        ]
    )
