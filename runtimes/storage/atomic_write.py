"""Output that is there completely or not at all: contents go in; a file or folder under its final name comes out, or what was there stays.

Everything is made under a hidden name in the same folder, so on the same file system; synced; renamed; and the folder is synced. A writer
holds a lock beside its output. What a killed one left behind, the next one removes.
"""

import contextlib
import errno
import glob
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from runtimes.errors import OutputError

try:
    import fcntl
except ModuleNotFoundError:  # Windows: no advisory locks in the standard library
    fcntl = None  # type: ignore[assignment]

BLOCK_BYTES = 1 << 20


def write_atomically(path: Path, content: bytes | Iterable[bytes]) -> None:
    """Write a file so that it is there completely or not at all: temporary file beside it, fsync, rename, fsync of the folder."""
    with open_atomic(path) as stream:
        stream.writelines([content] if isinstance(content, bytes) else content)


@contextlib.contextmanager
def open_atomic(path: Path) -> Iterator[BinaryIO]:
    """Open a file to write that gets its name when the block has ended well, and is removed otherwise."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(0o644)  # mkstemp is private; an artifact is read by whoever runs it
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def move_or_copy(source: Path, target: Path) -> None:
    """Give a finished file its name; from another file system, copy it beside the name and rename the copy.

    Raises:
        OSError: It can be neither moved nor copied; what had the name stays.
    """
    with source.open("rb+") as stream:
        os.fsync(stream.fileno())
    try:
        source.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with source.open("rb") as reader:
            write_atomically(target, iter(lambda: reader.read(BLOCK_BYTES), b""))
    else:
        target.chmod(0o644)


def sync_folder(path: Path) -> None:
    """Ask that names in a folder last; not every file system can, and what was renamed is renamed."""
    if os.name == "posix":
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


@contextlib.contextmanager
def locked(path: Path, *companions: Path) -> Iterator[None]:
    """Hold the writer's lock of an output, and remove temporary files that a killed writer of it left.

    Args:
        path: The output; the lock is a hidden file beside it.
        companions: Other files in the same folder that only the holder of this lock writes.

    Raises:
        OutputError: Another process holds it, or there can be none.
    """
    if fcntl is None:
        yield
        return
    lock = path.parent / f".{path.name}.lock"
    try:
        held = lock.open("w")
    except OSError as error:
        raise OutputError(path, error.strerror or str(error)) from error
    with held as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(path, "another process is writing it") from error
        except OSError as error:
            raise OutputError(path, f"it cannot be locked ({error.strerror})") from error
        if not lock.exists() or not os.path.samestat(os.fstat(stream.fileno()), lock.stat()):
            raise OutputError(path, "another process has just written it")  # we hold the lock of a file that it removed
        try:
            with contextlib.suppress(OSError):
                for file in (path, *companions):
                    for left in path.parent.glob(f".{glob.escape(file.name)}-????????.tmp"):
                        left.unlink(missing_ok=True)
            yield
        finally:
            with contextlib.suppress(OSError):  # one that is left behind hinders nobody
                lock.unlink(missing_ok=True)


@contextlib.contextmanager
def working_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Make a hidden folder for what is not finished and remove it afterwards; and those of the same prefix whose makers were killed.

    A living maker holds a lock on its folder.
    """
    with contextlib.suppress(OSError):
        for left in parent.glob(f"{glob.escape(prefix)}*"):
            with contextlib.suppress(OSError):
                descriptor = _hold(left)
                shutil.rmtree(left)
                os.close(descriptor)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        try:
            held = _hold(folder)
        except (BlockingIOError, FileNotFoundError):  # another maker took it for one that was left
            continue
        except OSError:  # a file system without locks: nobody there removes what was left
            held = None
        if folder.exists():
            break
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if held is not None:
            os.close(held)


def _hold(folder: Path) -> int:
    """Lock a folder itself, as long as the descriptor is open.

    Raises:
        BlockingIOError: Another process holds it.
        OSError: Its file system has no locks.
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
