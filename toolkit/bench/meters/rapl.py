"""Measure the energy of the processor packages with the RAPL counters of Linux.

The counters cover the whole package, including other programs and idle power. They exclude memory, disks and the power supply. Intel and
AMD processors have the same file names. Since 2020 kernels allow only root to read them (CVE-2020-8694); without access there is no value.
"""

import re
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")

PACKAGE = re.compile(r"intel-rapl:\d+")
"""Zones of packages. `intel-rapl:0:0` is a part of a package; `intel-rapl-mmio:0` repeats a package."""


class EnergyMeter:
    """Sums the energy of all packages since its construction."""

    def __init__(self, root: Path = POWERCAP) -> None:
        self._counters = [zone / "energy_uj" for zone in _packages(root)]
        self._ranges = [_number(counter.parent / "max_energy_range_uj") for counter in self._counters]
        self._last = [_number(counter) for counter in self._counters]
        self._microjoules: int | None = 0 if self._counters and None not in self._ranges + self._last else None

    def update(self) -> None:
        """Read the counters. Call it more often than a counter wraps around, which takes minutes at full power."""
        now = [_number(counter) for counter in self._counters]
        for before, after, counted in zip(self._last, now, self._ranges, strict=True):
            if self._microjoules is None or before is None or after is None or counted is None:
                self._microjoules = None
            else:
                self._microjoules += after - before + (counted if after < before else 0)
        self._last = now

    @property
    def joules(self) -> float | None:
        """Joules up to the last update; None if a counter could not be read at some time."""
        return None if self._microjoules is None else self._microjoules / 1e6


def _packages(root: Path) -> list[Path]:
    return sorted(zone for zone in root.glob("intel-rapl:*") if PACKAGE.fullmatch(zone.name) and _text(zone / "name").startswith("package"))


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def _number(file: Path) -> int | None:
    text = _text(file)
    return int(text) if text.isdigit() else None
