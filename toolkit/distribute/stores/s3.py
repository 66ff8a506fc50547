"""Objects of an S3 server (`s3://bucket/key`), through `pyarrow.fs`."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from functools import cached_property
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from runtimes.errors import MissingDependencyError, OutputError, first_line
from toolkit.distribute.stores.store import Kind
from toolkit.image_paths import SUFFIXES

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

        infos = self._files.get_file_info(FileSelector(_key(folder), allow_not_found=True))
        return {info.base_name: info.size for info in infos if info.is_file}

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

        infos = self._files.get_file_info(FileSelector(_key(folder)))
        return sorted((S3 + info.path, not info.is_file) for info in infos if not info.base_name.startswith("."))

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
