"""One input of a data set: where its bytes are."""

import os
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """An image file, a member of a tar file, or a cell of a Parquet file; or an input that could not be listed."""

    image: str
    """Name of the image in the output: its path, `FILE.tar/MEMBER`, or `FILE.parquet#ROW`. Undecodable bytes are escaped."""
    path: bytes
    """File that contains it, as `os.fsencode` returns its name."""
    offset: int | None = None
    """First byte of a tar member in its file."""
    size: int | None = None
    """Bytes of a tar member."""
    row: int | None = None
    """Row of a Parquet file."""
    sha256: bytes | None = None
    """Hash of the image's bytes, 32 bytes, if it was read when it was listed."""
    problem: str | None = None
    """Why it cannot be read, if that is known already."""

    @property
    def file(self) -> str:
        """Name of the file that contains it."""
        return os.fsdecode(self.path)


def printable(name: str) -> str:
    r"""Return a file name as text that can be encoded: undecodable bytes as `\xNN`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
