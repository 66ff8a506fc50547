"""Disks that are too small or cannot be written: real ones, of memory, where the system lets this process mount them."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

SIZES = [4096 << step for step in range(11)]
"""Bytes, from a page to 4 MiB: each writing deed fails on the first and has room on the last."""


def can_mount(folder: Path) -> bool:
    """Whether this process may mount: as root, or in a namespace of its own (`unshare -rm`)."""
    try:
        with mounted(folder, SIZES[0]):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


@contextlib.contextmanager
def mounted(folder: Path, size: int) -> Iterator[None]:
    """Be on a disk of that size."""
    folder.mkdir(exist_ok=True)
    _run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder)
    try:
        yield
    finally:
        _run("umount", folder)


def change(folder: Path, options: str) -> None:
    """Make a mounted disk larger (`size=N`), read-only (`ro`) or writable (`rw`)."""
    _run("mount", "-o", f"remount,{options}", folder)


def _run(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
