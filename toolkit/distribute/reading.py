"""Read the bytes of inputs ahead of the model, in order."""

import os
from collections.abc import Generator, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import BinaryIO, Final

from runtimes.errors import DatasetError, EnvironmentFailedError, ImageReadError, ToolkitError, first_line
from runtimes.images.prefetch import read_ahead
from runtimes.images.reading import error_of
from toolkit.distribute.entry import Entry
from toolkit.distribute.sources.parquet import read_cells
from toolkit.distribute.stores.s3 import S3
from toolkit.distribute.stores.store import Store
from toolkit.distribute.stores.stores import Stores

MAX_IMAGE_BYTES: Final = 512 << 20
"""Larger files are refused before memory is taken: an uncompressed image of 50 million pixels has 400 MB at most."""

Content = bytes | ToolkitError


def read_entries(entries: Sequence[Entry], stores: Stores, column: str, readers: int) -> Generator[Content, None, None]:
    """Yield the bytes of each input, or the error that prevents it.

    Args:
        entries: Inputs. Neighbours in one tar or Parquet file share an open file.
        stores: The stores of the inputs.
        column: Column of the images in Parquet files.
        readers: Threads that read; at most twice as many inputs are read ahead of the consumer. 0: they are read one by one.
    """
    for (path, is_cell), group in groupby(entries, _container):
        members, file = list(group), os.fsdecode(path)
        if not path:
            yield from read_ahead(partial(_read_file, stores), members, readers, ahead=2 * readers or 1)
        elif is_cell:
            yield from _read_cells(file, stores.of(file), column, members)
        else:
            yield from _read_members(file, stores.of(file), members, readers)


def _container(entry: Entry) -> tuple[bytes, bool]:
    """Return the file that contains an input, empty for a file of its own, and whether it is a Parquet file."""
    if entry.problem is not None or (entry.row is None and entry.offset is None):
        return b"", False
    return entry.path, entry.row is not None


def _read_file(stores: Stores, entry: Entry) -> Content:
    """Return the bytes of an image file."""
    if entry.problem is not None:
        return ImageReadError(entry.image, entry.problem)
    try:
        with stores.of(entry.file).open(entry.file) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            return file.read(size) if size <= MAX_IMAGE_BYTES else _too_large(entry, size)
    except (OSError, ValueError, MemoryError) as error:  # ValueError: a NUL byte in the name
        return _failure(error, entry)


def _read_members(path: str, store: Store, entries: Sequence[Entry], readers: int) -> Iterator[Content]:
    """Yield the members of one tar file."""
    try:
        file = store.open(path)
    except OSError as error:
        yield from (_failure(error, entry) for entry in entries)
        return
    with file:
        yield from read_ahead(partial(_read_member, store, file), entries, readers, ahead=2 * readers or 1)


def _read_member(store: Store, file: BinaryIO, entry: Entry) -> Content:
    assert entry.offset is not None
    assert entry.size is not None
    if entry.size > MAX_IMAGE_BYTES:
        return _too_large(entry, entry.size)
    try:
        return store.read_range(file, entry.offset, entry.size)
    except (OSError, MemoryError) as error:
        return _failure(error, entry)


def _read_cells(path: str, store: Store, column: str, entries: Sequence[Entry]) -> Iterator[Content]:
    """Yield the cells of one Parquet file. If the file fails, the cells that are left have its error."""
    done = 0
    try:
        for content in read_cells(path, store, column, [entry.row or 0 for entry in entries]):
            yield content
            done += 1
    except (DatasetError, OSError, MemoryError) as error:
        yield from (_failure(error, entry) for entry in entries[done:])


def _too_large(entry: Entry, size: int) -> ToolkitError:
    return ImageReadError(entry.image, f"has {size:,} bytes; at most {MAX_IMAGE_BYTES:,} are read")


def _failure(error: Exception, entry: Entry) -> ToolkitError:
    """Return the error of an input. An object store that does not answer may answer later."""
    if entry.file.startswith(S3) and isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
        return EnvironmentFailedError(entry.image, first_line(error))
    return error_of(error, entry.image)
