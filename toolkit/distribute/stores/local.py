"""Files of this machine."""

import io
import os
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, cast

from runtimes.errors import OutputError
from runtimes.storage.atomic_write import move_or_copy, remove_temporaries, write_atomically
from toolkit.distribute.stores.store import Kind
from toolkit.image_paths import is_input, matches, walk


class LocalStore:
    """Files of this machine.

    Args:
        base: Folder where relative names start.
    """

    def __init__(self, base: str = "") -> None:
        self._base, self._reading = base, threading.Lock()

    def images(self, folder: str) -> Iterator[str]:
        """See `Store`."""
        return map(str, walk(Path(folder)))

    def matches(self, pattern: str) -> list[str]:
        """See `Store`."""
        return sorted(filter(is_input, matches(pattern)))

    def kind(self, path: str) -> Kind:
        """See `Store`."""
        if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises an error for a name that is too long
            return "folder"
        return "file" if os.path.lexists(path) else None

    def sizes(self, folder: str) -> Mapping[str, int]:
        """See `Store`."""
        try:
            with os.scandir(folder) as entries:
                return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
        except FileNotFoundError:
            return {}

    def open(self, path: str) -> BinaryIO:
        """See `Store`. A pipe or a device is refused, because reading it may never end."""
        file = io.FileIO(Path(self._base, path), opener=_without_waiting)
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise OSError(0, "is not a regular file")
        return cast("BinaryIO", file)

    def read_range(self, file: BinaryIO, offset: int, size: int) -> bytes:
        """See `Store`."""
        if not hasattr(os, "pread"):  # not on Windows
            with self._reading:
                file.seek(offset)
                return file.read(size)
        parts, descriptor = [], file.fileno()
        while size and (part := os.pread(descriptor, size, offset)):
            parts.append(part)
            offset, size = offset + len(part), size - len(part)
        return b"".join(parts)

    def write(self, path: str, content: bytes) -> None:
        """See `Store`."""
        try:
            Path(path).parent.mkdir(exist_ok=True)
            write_atomically(Path(path), content)
        except OSError as error:
            raise OutputError(path, error.strerror or str(error)) from error

    def put(self, path: str, file: Path) -> None:
        """See `Store`."""
        try:
            move_or_copy(file, Path(path))
        except OSError as error:
            raise OutputError(path, error.strerror or str(error)) from error

    def prepare(self, folder: str) -> None:
        """See `Store`."""
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(folder, error.strerror or str(error)) from error

    def remove_temporaries(self, folder: str, belongs: Callable[[str], bool]) -> None:
        """See `Store`."""
        remove_temporaries(Path(folder), belongs)


def _without_waiting(path: str, flags: int) -> int:
    """Open a file; opening a pipe without a writer does not wait for one."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
