"""The manifest of a data set: the list of its images, made once, as one or several Parquet files.

A row of the manifest is an `Entry`, and `first`: the index of the first row with the same bytes, or null. The index of a row is its number,
counted over all files. A row group has the rows of one shard, so a process reads only those of its shards. The digest covers the rows and
not the bytes of the file, because those depend on pyarrow's version.
"""

import hashlib
import json
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from runtimes.errors import DatasetError, OutputError, first_line
from toolkit.distribute.entry import Entry
from toolkit.distribute.stores.s3 import import_pyarrow
from toolkit.distribute.stores.store import Store

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

DIGEST_KEY = b"blip-toolkit.digest"
FIELDS = tuple(field.name for field in fields(Entry))


@dataclass(frozen=True, kw_only=True)
class ManifestFile:
    """One file of a manifest. `--extend` adds further ones."""

    file: str
    """Its name in the output folder."""
    digest: str
    """sha256 of its rows."""
    rows: int
    start: int
    """Index of its first row."""
    first_shard: int


@dataclass(frozen=True, kw_only=True)
class ShardEntries:
    """The inputs of one shard."""

    start: int
    """Index of the first row."""
    entries: tuple[Entry, ...]
    first: tuple[int | None, ...]
    """Index of the first row with the same bytes, for rows that are not the first themselves."""


class _Hashes:
    """The sha256 of rows, of which 16 bytes are kept: 16 MB for a million rows. The chance that two of 10^9 are equal is 10^-21."""

    def __init__(self) -> None:
        self._words = array("Q")
        self._rows = array("q")

    def add(self, row: int, sha256: bytes | None) -> None:
        if sha256 is not None:
            self._words.frombytes(sha256[:16])
            self._rows.append(row)

    def first(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return i64[stop-start]: for each of these rows, the first row with the same bytes if it is an earlier one, else -1.

        The hashes are dropped, and arrays are made late, so that less memory is needed at once.
        """
        words, rows = np.frombuffer(self._words, np.uint64).reshape(-1, 2), np.frombuffer(self._rows, np.int64)
        order = np.lexsort((words[:, 1], words[:, 0]))  # stable: equal hashes keep the order of their rows
        same = np.zeros(len(rows), bool)  # as the hash before it
        same[1:] = True
        for column in (0, 1):
            word = words[order, column]
            same[1:] &= word[1:] == word[:-1]
        del words, word
        self._words = array("Q")
        rows = rows[order]
        del order
        begins = np.arange(len(rows))
        begins[same] = 0
        np.maximum.accumulate(begins, out=begins)
        repeated = np.flatnonzero(same & (rows >= start))
        first = np.full(stop - start, -1, np.int64)
        first[rows[repeated] - start] = rows[begins[repeated]]
        return first


def write_manifest(
    entries: Iterable[Entry], shard_size: int, path: str, store: Store, earlier: Sequence[tuple[ManifestFile, str]]
) -> ManifestFile | None:
    """Write one file of a manifest, and return it; None if there is no row.

    Args:
        entries: Its rows, consumed one by one. Rows that the earlier files have are dropped.
        shard_size: Rows per shard.
        path: Name of the file.
        store: The store of the output.
        earlier: The earlier files of the manifest, with their paths.

    Raises:
        OutputError: There is no space for the file.
    """
    import_pyarrow()
    from pyarrow.parquet import ParquetWriter

    start = sum(file.rows for file, _ in earlier)
    hashes, known = _Hashes(), set[int]()
    for file, name in earlier:
        for number, row in enumerate(_names_and_hashes(name, store), start=file.start):
            hashes.add(number, row[1])
            known.add(_key(*row))
    new = (entry for entry in entries if not known or _key(entry.image, entry.sha256) not in known)
    digest, rows = hashlib.sha256(), 0
    try:
        with tempfile.TemporaryDirectory(prefix="blip-toolkit-") as folder:
            entries_file, final = Path(folder) / "entries", Path(folder) / "final"
            with ParquetWriter(entries_file, _schema(), compression="zstd") as writer:
                while chunk := list(islice(new, shard_size)):
                    for entry in chunk:
                        digest.update(json.dumps([_json(getattr(entry, name)) for name in FIELDS]).encode() + b"\n")
                        hashes.add(start + rows, entry.sha256)
                        rows += 1
                    writer.write_table(_table(chunk), row_group_size=shard_size)
            if not rows:
                return None
            _add_first(entries_file, final, hashes.first(start, start + rows), digest.hexdigest())
            entries_file.unlink()
            store.put(path, final)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(path, first_line(error)) from error
    first_shard = sum(shards_of(file, shard_size) for file, _ in earlier)
    return ManifestFile(file=path.rpartition("/")[2], digest=digest.hexdigest(), rows=rows, start=start, first_shard=first_shard)


def shards_of(file: ManifestFile, shard_size: int) -> int:
    """Return the number of shards of one file."""
    return -(-file.rows // shard_size)


class ManifestReader:
    """One file of a manifest, open for reading.

    Raises:
        DatasetError: The file is damaged, or is another one.
    """

    def __init__(self, file: ManifestFile, path: str, store: Store) -> None:
        self._file, self._path = file, path
        self._table = _open(path, store)
        if (self._table.schema_arrow.metadata or {}).get(DIGEST_KEY) != file.digest.encode():
            raise DatasetError(path, "is not the manifest of this run; copy the files of a run together")

    def shard(self, number: int) -> ShardEntries:
        """Return the inputs of a shard, by its number in this file's run."""
        from pyarrow import ArrowException

        group = number - self._file.first_shard
        start = self._file.start + group * self._table.metadata.row_group(0).num_rows  # only the last one has fewer rows
        try:
            columns = self._table.read_row_group(group).to_pydict()
        except (ArrowException, OSError) as error:
            raise DatasetError(self._path, f"cannot be read: {first_line(error)}") from error
        first = tuple(columns.pop("first"))
        entries = tuple(Entry(**dict(zip(columns, values, strict=True))) for values in zip(*columns.values(), strict=True))
        return ShardEntries(start=start, entries=entries, first=first)


def _open(path: str, store: Store) -> "ParquetFile":
    import_pyarrow()
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        return ParquetFile(store.open(path), pre_buffer=False)
    except (ArrowException, OSError) as error:
        raise DatasetError(path, f"is no manifest: {first_line(error)}") from error


def _names_and_hashes(path: str, store: Store) -> Iterator[tuple[str, bytes | None]]:
    for batch in _open(path, store).iter_batches(columns=["image", "sha256"]):
        yield from zip(batch.column("image").to_pylist(), batch.column("sha256").to_pylist(), strict=True)


def _key(image: str, sha256: bytes | None) -> int:
    return int.from_bytes(hashlib.blake2b(image.encode() + b"\0" + (sha256 or b""), digest_size=8).digest())


def _json(value: object) -> object:
    return value.hex() if isinstance(value, bytes) else value


def _schema(*more: Any) -> Any:  # noqa: ANN401 - pyarrow is untyped
    import pyarrow as pa

    kinds = {
        "image": pa.string(),
        "path": pa.binary(),
        "offset": pa.int64(),
        "size": pa.int64(),
        "row": pa.int64(),
        "sha256": pa.binary(32),
        "problem": pa.string(),
    }
    return pa.schema([(name, kinds[name]) for name in FIELDS] + list(more))


def _table(entries: Sequence[Entry]) -> Any:  # noqa: ANN401
    import pyarrow as pa

    return pa.table({name: [getattr(entry, name) for entry in entries] for name in FIELDS}, schema=_schema())


def _add_first(entries_file: Path, final: Path, first: NDArray[np.int64], digest: str) -> None:
    """Copy a file of entries and add the column `first` and the digest."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile, ParquetWriter

    with (
        ParquetFile(entries_file) as source,
        ParquetWriter(final, _schema(("first", pa.int64())).with_metadata({DIGEST_KEY: digest}), compression="zstd") as writer,
    ):
        done = 0
        for group in range(source.num_row_groups):
            table = source.read_row_group(group)
            values = first[done : done + table.num_rows]
            column = pa.array(values, mask=values < 0)
            writer.write_table(table.append_column("first", column).cast(writer.schema), row_group_size=max(1, table.num_rows))
            done += table.num_rows
