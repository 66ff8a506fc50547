"""Read and write files by name: local paths, and objects of an S3 server (`s3://bucket/key`) through `pyarrow.fs`."""

import io
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from functools import cached_property
from glob import glob, has_magic
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, Protocol, TypeAlias, cast

from runtimes.errors import DatasetError, MissingDependencyError, OutputError, first_line
from runtimes.storage.atomic_write import move_or_copy, remove_temporaries, write_atomically
from toolkit.image_paths import SUFFIXES, walk

S3: Final = "s3://"
ENDPOINT_VARIABLES: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
"""Names of the AWS command line, which `pyarrow.fs` ignores."""
CONNECT_S: Final = 5.0
REQUEST_S: Final = 60.0


def import_pyarrow() -> None:
    """Check that pyarrow is installed.

    Raises:
        MissingDependencyError: It is not.
    """
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("pyarrow", "Parquet files and object stores", "dataset") from error


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


class LocalStore:
    """Files of this machine.

    Args:
        base: Folder where relative names start.
    """

    def __init__(self, base: str = "") -> None:
        self._base = base

    def images(self, folder: str) -> Iterator[str]:
        """See `Store`."""
        return map(str, walk(Path(folder)))

    def matches(self, pattern: str) -> list[str]:
        """See `Store`."""
        return sorted(filter(os.path.isfile, glob(pattern, recursive=True)))  # noqa: PTH207 - Path.glob refuses absolute patterns

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


class S3Store:
    """Objects of an S3 server. Names begin with `s3://`.

    Args:
        endpoint: Address of the server; None: the environment's, else Amazon's.
    """

    def __init__(self, endpoint: str | None) -> None:
        self._endpoint = endpoint or next(filter(None, map(os.environ.get, ENDPOINT_VARIABLES)), None)

    @cached_property
    def _files(self) -> Any:  # noqa: ANN401 - pyarrow is untyped
        import_pyarrow()
        from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

        return S3FileSystem(
            endpoint_override=self._endpoint,
            connect_timeout=CONNECT_S,
            request_timeout=REQUEST_S,
            retry_strategy=AwsStandardS3RetryStrategy(max_attempts=4),  # waits longer after each attempt, by a random part
        )

    def images(self, folder: str) -> Iterator[str]:
        """See `Store`. The names of one folder are in memory at once."""
        for path, is_folder in self._children(folder):
            if is_folder:
                yield from self.images(path)
            elif Path(path).suffix.lower() in SUFFIXES:
                yield path

    def matches(self, pattern: str) -> list[str]:
        """See `Store`. `**` matches folders of any depth."""
        bucket, *parts = pattern.removeprefix(S3).split("/")
        return sorted(set(self._expand(S3 + bucket, [*parts, "*"] if parts[-1] == "**" else parts)))

    def kind(self, path: str) -> Kind:
        """See `Store`."""
        from pyarrow.fs import FileType

        kinds: dict[Any, Kind] = {FileType.Directory: "folder", FileType.File: "file"}
        return kinds.get(self._files.get_file_info(_key(path)).type)

    def sizes(self, folder: str) -> Mapping[str, int]:
        """See `Store`."""
        from pyarrow.fs import FileSelector

        found = self._files.get_file_info(FileSelector(_key(folder), allow_not_found=True))
        return {info.base_name: info.size for info in found if info.is_file}

    def open(self, path: str) -> BinaryIO:
        """See `Store`."""
        return cast("BinaryIO", self._files.open_input_file(_key(path)))

    def read_range(self, file: BinaryIO, offset: int, size: int) -> bytes:
        """See `Store`."""
        content: bytes = cast("Any", file).read_at(size, offset)
        return content

    def write(self, path: str, content: bytes) -> None:
        """See `Store`. The object appears when its upload is complete.

        The content is one write: closing a stream completes its upload, also if an interrupt has ended a loop of several writes.
        """
        self._upload(path, content)

    def _upload(self, path: str, content: bytes | mmap) -> None:
        try:
            with self._files.open_output_stream(_key(path)) as stream:
                stream.write(content)
        except OSError as error:
            raise OutputError(path, first_line(error)) from error

    def put(self, path: str, file: Path) -> None:
        """See `Store`."""
        with file.open("rb") as stream, mmap(stream.fileno(), 0, access=ACCESS_READ) as content:
            self._upload(path, content)

    def prepare(self, folder: str) -> None:
        """See `Store`."""
        bucket = _key(folder).partition("/")[0]
        try:
            exists = self.kind(S3 + bucket) == "folder"
        except OSError as error:
            raise OutputError(folder, first_line(error)) from error
        if not exists:
            raise OutputError(folder, f"there is no bucket {bucket}; create it")

    def remove_temporaries(self, folder: str, belongs: Callable[[str], bool]) -> None:
        """See `Store`. An upload that was not completed is no object."""

    def _children(self, folder: str) -> list[tuple[str, bool]]:
        """Return (name, whether it is a folder) of the entries of a folder without hidden ones, sorted."""
        from pyarrow.fs import FileSelector

        found = self._files.get_file_info(FileSelector(_key(folder)))
        return sorted((S3 + info.path, not info.is_file) for info in found if not info.base_name.startswith("."))

    def _expand(self, folder: str, parts: list[str]) -> Iterator[str]:
        """Yield the objects below a folder that the parts of a pattern match."""
        part, *rest = parts
        if part == "**":
            yield from self._expand(folder, rest)
        with suppress(FileNotFoundError):
            for path, is_folder in self._children(folder):
                if part == "**":
                    if is_folder:
                        yield from self._expand(path, parts)
                elif fnmatchcase(path.rpartition("/")[2], part) and is_folder == bool(rest):
                    yield from self._expand(path, rest) if rest else (path,)


def _key(path: str) -> str:
    return path.removeprefix(S3).strip("/")


class Stores:
    """The stores of a run.

    Args:
        endpoint: Address of the S3 server, see `S3Store`.
        base: Folder where relative names of local files start; the working directory by default.
    """

    def __init__(self, endpoint: str | None = None, base: str = "") -> None:
        self._local, self._s3 = LocalStore(base), S3Store(endpoint)

    def of(self, path: str) -> Store:
        """Return the store of a name."""
        return self._s3 if path.startswith(S3) else self._local


def expand(name: str, store: Store) -> list[str]:
    """Return what an input names: itself, or the files that its glob pattern matches.

    Raises:
        DatasetError: The pattern matches nothing, or the store cannot be read.
    """
    if not has_magic(name) or (not name.startswith(S3) and os.path.exists(name)):  # noqa: PTH110 - names that the system refuses
        return [name]
    try:
        matches = store.matches(name)
    except OSError as error:
        raise DatasetError(name, f"cannot be listed: {first_line(error)}") from error
    if not matches:
        raise DatasetError(name, "matches no file")
    return matches
