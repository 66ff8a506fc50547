"""List and read the images of a Parquet file: a column of bytes, of paths, or of both (the image type of Hugging Face's datasets)."""

import hashlib
import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from runtimes.errors import DatasetError, ImageReadError, ToolkitError, first_line
from toolkit.distribute.entry import Entry, printable
from toolkit.distribute.stores.s3 import S3, import_pyarrow
from toolkit.distribute.stores.store import Store

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

ROWS: Final = 16
"""Rows that are read at once: cells may be large."""
BUFFER_BYTES: Final = 1 << 20
COLUMN: Final = "image"
"""Default name of the column."""

Cell = bytes | str | None
"""The bytes of an image, its path, or neither."""


def list_parquet(path: str, store: Store, column: str, *, hashed: bool) -> Iterator[Entry | str]:
    """Yield one entry per row, or the path that a cell contains.

    Args:
        path: Name of the file.
        store: Its store.
        column: Column of the images.
        hashed: Whether to read the images and hash them.

    Raises:
        DatasetError: The file is no Parquet file, or has no such column.
        OSError: The file cannot be read.
    """
    with store.open(path) as file:
        table = _open(path, file, column)
        kind = table.schema_arrow.field(column).type
        if _is_bytes(kind) and not hashed:
            yield from (_entry(path, row) for row in range(table.metadata.num_rows))
            return
        for row, cell in enumerate(_cells(table, path, column)):
            if isinstance(cell, str) and cell:
                yield _beside(path, cell)
            else:
                problem = None if cell else "the cell is empty"
                yield _entry(path, row, hashlib.sha256(cell).digest() if hashed and isinstance(cell, bytes) and cell else None, problem)


def read_cells(path: str, store: Store, column: str, rows: Iterable[int]) -> Iterator[bytes | ToolkitError]:
    """Yield the bytes of an increasing sequence of rows, or the error of a row.

    Args:
        path: Name of the file.
        store: The store of the file.
        column: Column of the images.
        rows: Increasing row numbers, from 0.

    Raises:
        DatasetError: The file is no Parquet file, or has no such column.
        OSError: The file cannot be read.
    """
    with store.open(path) as file:
        table = _open(path, file, column)
        starts = [0]
        for group in range(table.num_row_groups):
            starts.append(starts[-1] + table.metadata.row_group(group).num_rows)
        for group, members in groupby(rows, lambda row: bisect_right(starts, row) - 1):
            cells = _cells(table, path, column, [group])
            position = starts[group]
            for row in members:
                for _ in range(row - position):
                    next(cells)
                cell, position = next(cells), row + 1
                yield cell if isinstance(cell, bytes) else ImageReadError(f"{printable(path)}#{row}", "the cell has no bytes")


def _entry(path: str, row: int, sha256: bytes | None = None, problem: str | None = None) -> Entry:
    return Entry(image=f"{printable(path)}#{row}", path=os.fsencode(path), row=row, sha256=sha256, problem=problem)


def _beside(path: str, name: str) -> str:
    """Return a path of a cell, relative to the folder of the Parquet file."""
    folder = path.rpartition("/")[0]
    return name if name.startswith(("/", S3)) or not folder else f"{folder}/{name}"


def _open(path: str, file: BinaryIO, column: str) -> "ParquetFile":
    import_pyarrow()
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        table = ParquetFile(file, buffer_size=BUFFER_BYTES, pre_buffer=False)
    except (ArrowException, OSError) as error:
        raise DatasetError(path, f"is no Parquet file: {first_line(error)}") from error
    names = table.schema_arrow.names
    if column not in names:
        raise DatasetError(path, f"has no column {column!r}, but {', '.join(names[:20])}; choose one with --column")
    if not _is_image_type(kind := table.schema_arrow.field(column).type):
        raise DatasetError(path, f"column {column!r} has the type {kind}, not bytes, a path, or both; choose another with --column")
    return table


def _is_bytes(kind: Any) -> bool:  # noqa: ANN401 - pyarrow is untyped
    from pyarrow import types

    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _is_image_type(kind: Any) -> bool:  # noqa: ANN401
    from pyarrow import types

    if types.is_struct(kind):
        fields = {field.name: field.type for field in kind}
        return "bytes" in fields and _is_bytes(fields["bytes"])
    return _is_bytes(kind) or bool(types.is_string(kind) or types.is_large_string(kind))


def _cells(table: "ParquetFile", path: str, column: str, groups: list[int] | None = None) -> Iterator[Cell]:
    """Yield the cells of row groups; None for a row without an image."""
    from pyarrow import ArrowException

    try:
        for batch in table.iter_batches(ROWS, groups, [column]):
            for cell in batch.column(0).to_pylist():
                if isinstance(cell, dict):
                    yield cell["bytes"] or cell.get("path")
                else:
                    yield cell
    except (ArrowException, OSError) as error:
        raise DatasetError(path, f"is damaged: {first_line(error)}") from error
