"""List the image files of a folder, and hash image files."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from typing import Final

from runtimes.errors import DatasetError, first_line
from runtimes.images.prefetch import read_ahead
from runtimes.storage.blocks import read_blocks
from toolkit.distribute.entry import Entry, printable
from toolkit.distribute.stores.store import Store
from toolkit.distribute.stores.stores import Stores

READERS: Final = 16
"""Threads that hash files: each request to an object store waits for an answer."""


def list_folder(path: str, store: Store) -> Iterator[str]:
    """Yield the images of a folder and its subfolders, in a fixed order.

    Raises:
        DatasetError: The folder cannot be read, or has no image.
    """
    images = 0
    try:
        for images, image in enumerate(store.images(path), start=1):  # noqa: B007 - the last value is the number of images
            yield image
    except OSError as error:
        raise DatasetError(path, f"cannot be listed: {first_line(error)}") from error
    if not images:
        raise DatasetError(path, "no images here; name tar or Parquet files by a pattern, for example '*.tar'")


def file_entries(inputs: Iterable[str | Entry], stores: Stores, *, hashed: bool) -> Iterator[Entry]:
    """Yield the entries of image files; entries pass unchanged, and the order is kept.

    A file that cannot be read is an entry without a hash: reading it later makes an error row.
    """

    def entry(item: str | Entry) -> Entry:
        if isinstance(item, Entry):
            return item
        return Entry(image=printable(item), path=os.fsencode(item), sha256=_sha256(item, stores.of(item)) if hashed else None)

    if hashed:
        return read_ahead(entry, inputs, READERS, ahead=4 * READERS)
    return map(entry, inputs)


def _sha256(path: str, store: Store) -> bytes | None:
    digest = hashlib.sha256()
    try:
        with store.open(path) as file:
            for block in read_blocks(file):
                digest.update(block)
    except (OSError, ValueError):  # ValueError: a NUL byte in the name
        return None
    return digest.digest()
