"""Open the files of an artifact, check them against the manifest, and read them.

Each file is opened once, and every reader uses the descriptor whose bytes were hashed. So a path may be a symbolic link (hub cache, DVC,
Nix, config map), and replacing the file afterwards has no effect. A thread hashes the model's files in the order of the manifest while the
caller imports a library or prepares an earlier file, which hides most of the time for hashing. Optional files are hashed on request.

Files up to `KEPT_BYTES` (graphs, tokenizer) stay in memory after hashing, and parsers get these bytes. Weights are hashed block by block. A
runtime reads them through the descriptor, or memory-maps the file by its path (external data of ONNX Runtime); `check_unchanged` then
checks that the path still refers to the hashed file and that the file was not modified.
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

BUFFER_BYTES = 1 << 20

FLAGS = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_BINARY", "O_NONBLOCK"))
"""A named pipe is refused after it is opened; without O_NONBLOCK, `open` would wait for a writer."""

KEPT_BYTES = 16 << 20
"""Files up to this size stay in memory between hashing and parsing. Graphs without weights and tokenizers are far smaller."""

MAX_READ_BYTES = 256 << 20
"""Largest file that `read` returns. Graphs and tokenizers are read as a whole, weights are not."""


@dataclass(frozen=True)
class _Checked:
    """A file that equals its manifest entry."""

    path: Path
    stream: BufferedReader
    content: bytes | None
    """None for a file that is too large to keep."""
    identity: tuple[int, ...]


class VerifiedFiles:
    """The files of an artifact, checked against its manifest. Made by `open_verified`."""

    def __init__(self, artifact: Artifact, *, verify: bool) -> None:
        self.artifact = artifact
        self.hash_s = 0.0
        """Seconds of hashing, most of them parallel to other work."""
        self._verify = verify
        self._used: set[str] = set()
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
            ArtifactCorruptError: The file is missing, differs from the manifest or is too large.
        """
        checked = self._checked(role)
        size = self.artifact.manifest.files[checked.path.name].bytes
        if size > MAX_READ_BYTES:
            raise ArtifactCorruptError(checked.path, f"has {size} bytes, more than the {MAX_READ_BYTES} that are read at once")
        return checked.stream.read(size) if checked.content is None else checked.content

    def open(self, role: str) -> BufferedReader:
        """Return a file, open at its start; `close` closes it. Errors: see `read`."""
        return self._checked(role).stream

    def path_for_mmap(self, role: str) -> Path:
        """Return the path of a file for a runtime that memory-maps it; call `check_unchanged` afterwards. Errors: see `read`."""
        return self._checked(role).path

    def mapped(self, role: str) -> mmap.mmap:
        """Return a file, memory-mapped from the descriptor that was hashed. Errors: see `read`."""
        return mmap.mmap(self._checked(role).stream.fileno(), 0, access=mmap.ACCESS_READ)

    def check_unchanged(self) -> None:
        """Check that no file that was read or mapped has been replaced or modified since it was hashed.

        Raises:
            ArtifactCorruptError: A file was replaced or modified.
        """
        for role in sorted(self._used):
            checked = self._checks[role].result()
            try:
                same = _identity(checked.path.stat()) == _identity(os.fstat(checked.stream.fileno())) == checked.identity
            except OSError:
                same = False
            if not same:
                raise ArtifactCorruptError(checked.path, "was changed while it was opened")

    def _begin(self, role: str) -> None:
        path = self.artifact.path_of(role)
        self._checks[role] = self._pool.submit(self._check, path, self.artifact.manifest.files[path.name])

    def _checked(self, role: str) -> _Checked:
        if role not in self._checks:
            self._begin(role)
        checked = self._checks[role].result()
        self._used.add(role)
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
                raise ArtifactCorruptError(path, f"has {status.st_size} bytes, the manifest declares {entry.bytes}")
            content, sha256 = self._hashed(stream, entry)
        except FileNotFoundError as error:
            raise ArtifactCorruptError(path, "is missing") from error
        except OSError as error:
            raise ArtifactCorruptError(path, f"cannot be read ({error.strerror})") from error
        if self._verify and sha256 != entry.sha256:
            raise ArtifactCorruptError(path, f"sha256 is {sha256[:12]}…, the manifest declares {entry.sha256[:12]}…")
        self.hash_s += perf_counter() - begun
        return _Checked(path, stream, content, _identity(status))

    def _hashed(self, stream: BufferedReader, entry: FileEntry) -> tuple[bytes | None, str]:
        """Return a small file's content, and the sha256; "" for a large file whose hash is skipped."""
        if entry.bytes <= KEPT_BYTES:
            content = stream.read(entry.bytes + 1)  # one more byte shows that the file has grown
            return content, hashlib.sha256(content).hexdigest()
        if not self._verify:
            return None, ""
        digest, block = hashlib.sha256(), bytearray(BUFFER_BYTES)
        while count := stream.readinto(block):
            digest.update(memoryview(block)[:count])
        return None, digest.hexdigest()


@contextlib.contextmanager
def open_verified(artifact: Artifact, *, verify: bool = True) -> Iterator[VerifiedFiles]:
    """Open an artifact's files and check them in a thread while the body runs. They are closed at its end.

    Args:
        artifact: From `open_artifact`.
        verify: False checks sizes and skips hashes, for an artifact whose files have just been hashed.
    """
    files = VerifiedFiles(artifact, verify=verify)
    try:
        yield files
    finally:
        files.close()


def _identity(status: os.stat_result) -> tuple[int, ...]:
    """Return values that differ for another file and after a write. POSIX has no call that sets ctime."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
