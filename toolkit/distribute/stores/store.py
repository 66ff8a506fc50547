"""What every store does: list, read and write files by name."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Literal, Protocol, TypeAlias

Kind: TypeAlias = Literal["file", "folder"] | None


class Store(Protocol):
    """Files by name. Errors of the system are `OSError`s."""

    def images(self, folder: str) -> Iterator[str]:
        """Yield the images of a folder and its subfolders, in a fixed order."""
        ...

    def matches(self, pattern: str) -> list[str]:
        """Return the files that a glob pattern matches, sorted."""
        ...

    def kind(self, path: str) -> Kind:
        """Return what a path is; None if there is nothing."""
        ...

    def sizes(self, folder: str) -> Mapping[str, int]:
        """Return name → size in bytes of the files in a folder; empty if there is no folder."""
        ...

    def open(self, path: str) -> BinaryIO:
        """Open a regular file for reading at any position, without a buffer."""
        ...

    def read_range(self, file: BinaryIO, offset: int, size: int) -> bytes:
        """Read bytes of an open file; several threads may do so at once. Fewer are returned at its end."""
        ...

    def write(self, path: str, content: bytes) -> None:
        """Write a file so that it appears complete.

        Raises:
            OutputError: It cannot be written; nothing has changed.
        """
        ...

    def put(self, path: str, file: Path) -> None:
        """Write a file with the content of a local one, which may be moved. Errors are those of `write`."""
        ...

    def prepare(self, folder: str) -> None:
        """Create an output folder, or check that the bucket exists.

        Raises:
            OutputError: It is not there and cannot be created.
        """
        ...

    def remove_temporaries(self, folder: str, belongs: Callable[[str], bool]) -> None:
        """Remove what killed processes left of files that were not complete; see `atomic_write.remove_temporaries`."""
        ...
