"""List the images of a tar file, for example a shard of a WebDataset. Nothing is unpacked: an image is a range of the tar file."""

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import BinaryIO, Final, cast

from runtimes.errors import DatasetError, first_line
from runtimes.storage.blocks import read_blocks
from toolkit.distribute.entry import Entry, printable
from toolkit.distribute.stores.store import Store
from toolkit.image_paths import SUFFIXES

BUFFER_BYTES: Final = 8 << 20
"""Objects are read in ranges of this size: each request costs milliseconds."""
COMPRESSED: Final = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")
"""First bytes of gzip, bzip2, xz and zstd."""
MAX_HEADER_BYTES: Final = 1 << 20
"""Longest header that is read into memory. Names have at most some kilobytes."""


class _Headers:
    """A file for `tarfile` that refuses large reads: an extended header states its own size."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self._file.read(size)


def list_tar(path: str, store: Store, *, hashed: bool) -> Iterator[Entry]:
    """Yield the images of a tar file in its order. The end of a cut or damaged file is an entry with a problem.

    An empty file, or one of another kind, is such an entry as a whole.

    Args:
        path: Name of the file.
        store: Its store.
        hashed: Whether to read the images and hash them.

    Raises:
        DatasetError: The file is compressed.
        OSError: The file cannot be read.
    """
    with io.BufferedReader(cast("io.RawIOBase", store.open(path)), BUFFER_BYTES) as file:
        try:
            archive = tarfile.open(fileobj=_Headers(file), mode="r:", encoding="utf-8", errors="surrogateescape")  # type: ignore[call-overload]  # noqa: SIM115
        except tarfile.TarError as error:
            file.seek(0)
            if file.read(max(map(len, COMPRESSED))).startswith(COMPRESSED):
                raise DatasetError(path, "is compressed, and images are read by their position; decompress it") from error
            # Perhaps its writer was killed.
            yield _damaged(path, f"is not a tar file: {first_line(error)}")
            return
        end, last = file.seek(0, os.SEEK_END), "its start"
        while True:
            try:
                member = archive.next()
            except (tarfile.TarError, ValueError, OverflowError) as error:
                yield _damaged(path, f"is damaged or cut after {last}: {first_line(error)}")
                return
            if member is None:
                file.seek(archive.offset)
                if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                    yield _damaged(path, f"is damaged or cut after {last}: the end mark is missing")
                return
            archive.members = []  # tarfile keeps every header otherwise
            last = printable(member.name)
            if member.size < 0 or member.offset_data + member.size > end:
                yield _damaged(path, f"ends inside of {last}, which has {member.size:,} bytes", f"{printable(path)}/{last}")
                return
            if member.isreg() and not member.issparse() and _is_image(member.name):
                yield Entry(
                    image=f"{printable(path)}/{last}",
                    path=os.fsencode(path),
                    offset=member.offset_data,
                    size=member.size,
                    sha256=_sha256(file, member.offset_data, member.size) if hashed else None,
                )


def _is_image(name: str) -> bool:
    """Return whether a member is an image by its suffix. Hidden files are left out, for example those that macOS adds."""
    path = PurePosixPath(name)
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _damaged(path: str, problem: str, image: str | None = None) -> Entry:
    """Return the entry of the rest of a tar file."""
    return Entry(image=image or printable(path), path=os.fsencode(path), problem=problem)


def _sha256(file: BinaryIO, offset: int, size: int) -> bytes:
    """Return the hash of a range of a file."""
    digest = hashlib.sha256()
    file.seek(offset)
    for block in read_blocks(file, size):
        digest.update(block)
    return digest.digest()
