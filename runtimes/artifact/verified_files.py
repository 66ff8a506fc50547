"""The files of an artifact while it is opened: each is opened once, checked against the manifest, and read through that one descriptor.

A thread hashes the model's files in the manifest's order while the caller imports a library or prepares the file before, so checking costs
little time of its own; an optional file is hashed when it is requested. A path may be a symbolic link (the hub's cache, DVC, Nix, a mounted
config map): what is read is the descriptor that was hashed, wherever the link led. Files that hold no weights are small: their bytes are
kept, and a parser gets the very bytes that were hashed. Weights are hashed block by block; a runtime reads them through the same
descriptor, or maps the file by its path (ONNX Runtime's external data), and `check_unchanged` afterwards checks that the path still leads
to the file that was hashed and that nobody has written to it since.
"""

import contextlib
import hashlib
import mmap
import os
import stat
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from time import perf_counter

from runtimes.artifact.folder import Artifact
from runtimes.artifact.manifest import FileEntry
from runtimes.errors import ArtifactCorruptError

BLOCK_BYTES = 1 << 20

FLAGS = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_BINARY", "O_NONBLOCK"))
"""A pipe is refused after it was opened; without O_NONBLOCK, opening it would wait for its writer."""

KEPT_BYTES = 16 << 20
"""Files up to this size stay in memory from their hash to their parser: graphs without weights and tokenizers are far below it."""


MAX_READ_BYTES = 256 << 20
"""Of a graph or a tokenizer, which are parsed as a whole; weights are not."""


@dataclass(frozen=True)
class _Checked:
    """A file that was what the manifest says."""

    path: Path
    stream: BufferedReader
    content: bytes | None
    """None: too large to keep."""
    identity: tuple[int, ...]


class VerifiedFiles:
    """An artifact's files, being checked. Made by `open_verified`."""

    def __init__(self, artifact: Artifact, *, verify: bool) -> None:
        self.artifact = artifact
        self.hash_s = 0.0
        """Seconds that hashing took, most of them beside other work."""
        self._verify = verify
        self._asked: set[str] = set()
        self._stack = contextlib.ExitStack()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="hash")
        self._checks: dict[str, Future[_Checked]] = {}
        for entry in artifact.manifest.files.values():
            if not entry.optional:
                self._begin(entry.role)

    def close(self) -> None:
        """Stop checking and close every file."""
        self._pool.shutdown(cancel_futures=True)
        self._stack.close()

    def read(self, role: str) -> bytes:
        """Return the content of a file.

        Raises:
            ArtifactCorruptError: It is missing or differs from the manifest.
        """
        checked = self._checked(role)
        size = self.artifact.manifest.files[checked.path.name].bytes
        if size > MAX_READ_BYTES:
            raise ArtifactCorruptError(checked.path, f"has {size} bytes, more than the {MAX_READ_BYTES} that are read at once")
        return checked.stream.read(size) if checked.content is None else checked.content

    def open(self, role: str) -> BufferedReader:
        """Return an open file, at its start, which the files closes; errors as for `read`."""
        return self._checked(role).stream

    def path_for_mmap(self, role: str) -> Path:
        """Return the path of a file that a runtime maps by its path, before `check_unchanged`; errors as for `read`."""
        return self._checked(role).path

    def mapped(self, role: str) -> mmap.mmap:
        """Return a file's bytes, mapped from the descriptor that was hashed; errors as for `read`."""
        return mmap.mmap(self._checked(role).stream.fileno(), 0, access=mmap.ACCESS_READ)

    def check_unchanged(self) -> None:
        """See that no file that was asked for was replaced or written to since it was hashed: what was read or mapped is what was checked.

        Raises:
            ArtifactCorruptError: One was.
        """
        for role in sorted(self._asked):
            checked = self._checks[role].result()
            try:
                same = _identity(checked.path.stat()) == _identity(os.fstat(checked.stream.fileno())) == checked.identity
            except OSError:
                same = False
            if not same:
                raise ArtifactCorruptError(checked.path, "was changed while it was being opened")

    def _begin(self, role: str) -> None:
        path = self.artifact.path_of(role)
        self._checks[role] = self._pool.submit(self._check, path, self.artifact.manifest.files[path.name])

    def _checked(self, role: str) -> _Checked:
        if role not in self._checks:
            self._begin(role)
        checked = self._checks[role].result()
        self._asked.add(role)
        checked.stream.seek(0)
        return checked

    def _check(self, path: Path, entry: FileEntry) -> _Checked:
        begun = perf_counter()
        try:
            stream = self._stack.enter_context(os.fdopen(os.open(path, FLAGS), "rb"))
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ArtifactCorruptError(path, "is not a regular file")
            if status.st_size != entry.bytes:
                raise ArtifactCorruptError(path, f"has {status.st_size} bytes, the manifest says {entry.bytes}")
            content, found = self._hashed(stream, entry)
        except FileNotFoundError as error:
            raise ArtifactCorruptError(path, "is missing") from error
        except OSError as error:
            raise ArtifactCorruptError(path, f"cannot be read ({error.strerror})") from error
        if self._verify and found != entry.sha256:
            raise ArtifactCorruptError(path, f"sha256 is {found[:12]}…, the manifest says {entry.sha256[:12]}…")
        self.hash_s += perf_counter() - begun
        return _Checked(path, stream, content, _identity(status))

    def _hashed(self, stream: BufferedReader, entry: FileEntry) -> tuple[bytes | None, str]:
        if entry.bytes <= KEPT_BYTES:
            content = stream.read(entry.bytes + 1)  # one more, should it have grown
            return content, hashlib.sha256(content).hexdigest()
        if not self._verify:
            return None, ""
        digest, block = hashlib.sha256(), bytearray(BLOCK_BYTES)
        while count := stream.readinto(block):
            digest.update(memoryview(block)[:count])
        return None, digest.hexdigest()


@contextlib.contextmanager
def open_verified(artifact: Artifact, *, verify: bool = True) -> Iterator[VerifiedFiles]:
    """Open an artifact's files and check them in a thread while the body runs; they are closed at its end.

    Args:
        artifact: From `open_artifact`.
        verify: False leaves the hashes out: sizes are checked only. For an artifact whose files were hashed a moment ago.
    """
    files = VerifiedFiles(artifact, verify=verify)
    try:
        yield files
    finally:
        files.close()


def _identity(status: os.stat_result) -> tuple[int, ...]:
    """What tells whether a path leads to the same file and whether anybody wrote to it: POSIX gives no way to set the time of change."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
