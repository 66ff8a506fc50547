"""Measure how long the CPU was throttled, by heat (Intel) or by a CPU quota (cgroups)."""

from pathlib import Path

from runtimes.host.cgroups import cpu_cgroups

HEAT = "sys/devices/system/cpu/cpu*/thermal_throttle/*_throttle_total_time_ms"
"""Milliseconds of each core and of its package; since kernel 5.7."""

QUOTA_UNITS = {"throttled_usec": 1e-6, "throttled_time": 1e-9}
"""Key in cpu.stat of a cgroup (v2, v1) → seconds per unit."""


class ThrottleMeter:
    """Compares all throttling counters with their values at construction."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._before = _counters(root)

    def seconds(self) -> float | None:
        """Return the increase of the counter that increased most; None without counters. A quota's counter sums the waits of all CPUs."""
        after = _counters(self._root)
        return max((after[name] - seconds for name, seconds in self._before.items() if name in after), default=None)


def _counters(root: Path) -> dict[str, float]:
    """Return counter (a file, or a cgroup and a key) → seconds."""
    counters = {str(file): int(text) / 1e3 for file in root.glob(HEAT) if (text := _text(file).strip()).isdigit()}
    for group in cpu_cgroups(root):
        pairs = (line.split() for line in _text(group / "cpu.stat").splitlines())
        counters |= {f"{group} {key}": int(value) * QUOTA_UNITS[key] for key, value in pairs if key in QUOTA_UNITS}
    return counters


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
