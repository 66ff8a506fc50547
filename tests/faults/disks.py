"""Disks that are too small or read-only: file systems in memory, where this process may mount them."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

SIZES = [4096 << step for step in range(11)]
"""Sizes in bytes, from a page to 4 MiB: each command fails on the first and has enough space on the last."""


def can_mount(folder: Path) -> bool:
    """Return whether this process may mount: as root, or in a namespace of its own (`unshare -rm`)."""
    try:
        with mounted(folder, SIZES[0]):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


@contextlib.contextmanager
def mounted(folder: Path, size: int) -> Iterator[None]:
    """Mount a disk of this size for the duration of the block."""
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
