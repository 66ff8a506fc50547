"""Read the current and the peak resident memory of this process in bytes; None if the system does not provide it."""

import importlib.util
from pathlib import Path

STATUS = Path("/proc/self/status")


def resident_bytes() -> int | None:
    """Return the current resident memory."""
    return _status("VmRSS") or _psutil("rss")


def peak_bytes() -> int | None:
    """Return the peak resident memory since the process started: VmHWM on Linux, the peak working set on Windows."""
    return _status("VmHWM") or _psutil("peak_wset")


def _status(key: str) -> int | None:
    try:
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{key}:"))
    except (OSError, StopIteration):
        return None
    return int(line.split()[1]) * 1024


def _psutil(field: str) -> int | None:
    if importlib.util.find_spec("psutil") is None:
        return None
    import psutil

    value = getattr(psutil.Process().memory_info(), field, None)
    return int(value) if value is not None else None
