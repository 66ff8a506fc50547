"""Time that the machine held cores back: seconds of heat (Intel) or of a CPU quota (cgroups) since a meter was made come out."""

from pathlib import Path

from runtimes.host.cgroups import cpu_cgroups

HEAT = "sys/devices/system/cpu/cpu*/thermal_throttle/*_throttle_total_time_ms"
"""Of each core and its package, milliseconds; kernels since 5.7."""

QUOTA_UNITS = {"throttled_usec": 1e-6, "throttled_time": 1e-9}
"""Key in a cgroup's cpu.stat, of v2 and v1 → seconds."""


class ThrottleMeter:
    """Watches every counter that there was when it was made."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._before = _counters(root)

    def seconds(self) -> float | None:
        """Return what the counter that rose most has risen by; None if there is none. A quota counts each CPU's wait."""
        after = _counters(self._root)
        return max((after[name] - seconds for name, seconds in self._before.items() if name in after), default=None)


def _counters(root: Path) -> dict[str, float]:
    """File, and a key in it → seconds so far."""
    found = {str(file): int(text) / 1e3 for file in root.glob(HEAT) if (text := _text(file).strip()).isdigit()}
    for group in cpu_cgroups(root):
        pairs = (line.split() for line in _text(group / "cpu.stat").splitlines())
        found |= {f"{group} {key}": int(value) * QUOTA_UNITS[key] for key, value in pairs if key in QUOTA_UNITS}
    return found


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
