"""Atomic writes: after a crash, the output is either complete or as it was before.

A file or folder is written under a hidden name in the same folder (so on the same file system), synced, and renamed; then the folder is
synced. A writer locks its output. The next writer removes the temporary files of a killed one.
"""

import contextlib
import errno
import glob
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from runtimes.errors import OutputError
from runtimes.storage.blocks import read_blocks

try:
    import fcntl
except ModuleNotFoundError:  # Windows: no advisory locks in the standard library
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

UNSUPPORTED = frozenset(
    getattr(errno, name)
    for name in ("EPERM", "EACCES", "EINVAL", "ENOSYS", "ENOTSUP", "EOPNOTSUPP", "ENOTTY", "ENOLCK", "EROFS")
    if hasattr(errno, name)
)
"""Values of `OSError.errno` with which a file system refuses an operation that it does not have."""
TEMPORARY = re.compile(r"\.(.+)-[^-]{8}\.tmp")
"""Names of the temporary files of `open_atomic`."""


def write_atomically(path: Path, content: bytes | Iterable[bytes]) -> None:
    """Write a file atomically: temporary file beside it, fsync, rename, fsync of the folder."""
    with open_atomic(path) as stream:
        stream.writelines([content] if isinstance(content, bytes) else content)


@contextlib.contextmanager
def open_atomic(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file for writing. It is renamed to `path` if the block succeeds, and removed otherwise."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            sync_file(stream.fileno(), path)
        set_mode(temporary, 0o644)  # mkstemp creates private files, and other users run artifacts
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def move_or_copy(source: Path, target: Path) -> None:
    """Move a finished file to `target`. From another file system, copy it beside the target and rename the copy.

    Raises:
        OSError: The file can be neither moved nor copied; the target is unchanged.
    """
    with source.open("rb+") as stream:
        sync_file(stream.fileno(), source)
    try:
        source.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with source.open("rb") as reader:
            write_atomically(target, read_blocks(reader))
    else:
        set_mode(target, 0o644)


def sync_file(descriptor: int, path: Path) -> None:
    """Sync an open file. If its file system cannot sync, log a warning.

    Raises:
        OSError: The content is not on the disk: no space, an input or output error.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        logger.warning("%s: cannot be synced to disk (%s); a power failure may lose it", path, error.strerror)


def set_mode(path: Path, mode: int) -> None:
    """Set the permissions of a file or folder. If its file system refuses, log a warning."""
    try:
        path.chmod(mode)
    except OSError as error:
        logger.warning("%s: its permissions cannot be set to %o (%s)", path, mode, error.strerror)


def free_bytes(folder: Path) -> int | None:
    """Return the free space of a folder's file system; None if the file system does not report it, or reports no size or less than 0."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return None
    return usage.free if usage.total > 0 and usage.free >= 0 else None


def sync_folder(path: Path) -> None:
    """Sync the names in a folder. Errors are ignored: some file systems cannot, and the rename has been done."""
    if os.name == "posix":
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


@contextlib.contextmanager
def locked(path: Path, *companions: Path) -> Iterator[None]:
    """Lock an output for writing, and remove temporary files of a killed writer.

    Args:
        path: The output. The lock is a hidden file beside it.
        companions: Other files in the same folder that are written only under this lock.

    Raises:
        OutputError: Another process has the lock, or its file cannot be created. A file system without locks costs a warning.
    """
    if fcntl is None:
        yield
        return
    lock = path.parent / f".{path.name}.lock"
    try:
        lock_file = lock.open("w")
    except OSError as error:
        raise OutputError(path, error.strerror or str(error)) from error
    with lock_file as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(path, "another process is writing it") from error
        except OSError as error:
            logger.warning("%s: cannot be locked (%s); do not run another writer of it", path, error.strerror)
        if not lock.exists() or not os.path.samestat(os.fstat(stream.fileno()), lock.stat()):
            raise OutputError(path, "another process has just written it")  # it removed the file whose lock this process has
        try:
            remove_temporaries(path.parent, {file.name for file in (path, *companions)}.__contains__)
            yield
        finally:
            with contextlib.suppress(OSError):  # a remaining lock file does not block later writers
                lock.unlink(missing_ok=True)


def remove_temporaries(folder: Path, belongs: Callable[[str], bool]) -> None:
    """Remove the temporary files of killed writers. Those that cannot be removed stay.

    Args:
        folder: Where they are.
        belongs: Returns whether no process writes the file of this name now.
    """
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if (match := TEMPORARY.fullmatch(entry.name)) is not None and belongs(match[1]):
                Path(entry.path).unlink(missing_ok=True)


@contextlib.contextmanager
def working_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Create a hidden folder for unfinished output and remove it afterwards. Remove folders of the same prefix of killed processes.

    A running process has a lock on its folder.
    """
    with contextlib.suppress(OSError):
        for stale in parent.glob(f"{glob.escape(prefix)}*"):
            with contextlib.suppress(OSError):
                descriptor = _lock_folder(stale)
                shutil.rmtree(stale)
                os.close(descriptor)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        try:
            lock = _lock_folder(folder)
        except (BlockingIOError, FileNotFoundError):  # another process took it for a stale one
            continue
        except OSError:  # a file system without locks: stale folders are not removed there
            lock = None
        if folder.exists():
            break
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _lock_folder(folder: Path) -> int:
    """Lock a folder and return a descriptor; the lock lasts until it is closed.

    Raises:
        BlockingIOError: Another process has the lock.
        OSError: The file system has no locks.
    """
    if fcntl is None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
