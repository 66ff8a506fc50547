"""Memory that is available, and memory that a process has for itself."""

from contextlib import suppress
from pathlib import Path

from runtimes.host.cgroups import memory_left_bytes


def available_bytes(root: Path = Path("/")) -> int | None:
    """Return the memory in bytes that new processes may use, within the limits of the cgroups; None if unknown (not Linux)."""
    free = _field(root / "proc/meminfo", "MemAvailable")
    left = memory_left_bytes(root)
    return min((value for value in (free, left) if value is not None), default=None)


def anonymous_bytes(process_id: int, root: Path = Path("/")) -> int | None:
    """Return the memory of a process in bytes that no other process shares and no file contains; None if unknown.

    This is what one more process of the same kind needs, as the pages of memory-mapped files are shared.
    """
    return _field(root / f"proc/{process_id}/smaps_rollup", "Anonymous")


def proportional_bytes(process_id: int, root: Path = Path("/")) -> int | None:
    """Return the proportional set size (PSS) of a process in bytes: a page that n processes share counts 1/n; None if unknown."""
    return _field(root / f"proc/{process_id}/smaps_rollup", "Pss")


def _field(file: Path, name: str) -> int | None:
    """Return a value of a file with lines "name: number kB" in bytes."""
    with suppress(OSError, ValueError):
        for line in file.read_text().splitlines():
            key, _, value = line.partition(":")
            if key == name:
                return int(value.split()[0]) * 1024
    return None
