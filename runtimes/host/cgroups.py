"""What the container around this process grants: its cgroups' files (v2 or v1, below a root) go in; cores and bytes of memory come out.

A limit may stand at any level, so the tightest from this process's own group up to the root counts.
"""

import math
from pathlib import Path

OWN = Path("proc/self/cgroup")

QUOTAS = (
    ("", ("sys/fs/cgroup", "sys/fs/cgroup/unified"), ("cpu.max", None)),
    ("cpu", ("sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct"), ("cpu.cfs_quota_us", "cpu.cfs_period_us")),
)
"""Of cgroup v2 and v1: the controller's name in `OWN`, where its tree is mounted, and the files of the quota and of its period (v2 has
both in one)."""

MEMORY_LIMITS = (
    ("", ("sys/fs/cgroup", "sys/fs/cgroup/unified"), "memory.max"),
    ("memory", ("sys/fs/cgroup/memory",), "memory.limit_in_bytes"),
)
"""Likewise, and the file of the limit."""

UNLIMITED_BYTES = 1 << 60
"""v1 has no word for "no limit": it shows the largest number of whole pages, which is more than this."""


def quota_cores(root: Path = Path("/")) -> int | None:
    """Cores' worth of time, rounded up, that the tightest cgroup grants; None without a quota."""
    for controller, mounts, files in QUOTAS:
        quotas = [cores for group in _groups(root, controller, mounts) if (cores := _quota(group, *files)) is not None]
        if quotas:
            return math.ceil(min(quotas))
    return None


def memory_limit_bytes(root: Path = Path("/")) -> int | None:
    """Bytes of memory that the tightest cgroup grants; None without a limit."""
    for controller, mounts, file in MEMORY_LIMITS:
        limits = [limit for group in _groups(root, controller, mounts) if (limit := _limit(group / file)) is not None]
        if limits:
            return min(limits)
    return None


def cpu_cgroups(root: Path) -> list[Path]:
    """Folders of the CPU controllers' cgroups, v2 and v1, from this process's own up to the root, wherever they may be mounted."""
    return [group for controller, mounts, _ in QUOTAS for group in _groups(root, controller, mounts)]


def _groups(root: Path, controller: str, mounts: tuple[str, ...]) -> list[Path]:
    """Folders of this process's cgroup of a controller, and of those above it, below each mount."""
    within = _own_cgroups(root).get(controller, Path())
    return [root / mount / level for mount in mounts for level in (within, *within.parents)]


def _own_cgroups(root: Path) -> dict[str, Path]:
    """Controller → this process's cgroup below the controller's mount; "" is v2's. A path that leaves the mount counts as its root."""
    try:
        lines = (root / OWN).read_text().splitlines()
    except OSError:
        return {}
    fields = [line.split(":", 2) for line in lines if line.count(":") >= 2]
    paths = {name: Path(path.lstrip("/")) for _, names, path in fields for name in names.split(",")}
    return {name: Path() if ".." in path.parts else path for name, path in paths.items()}


def _quota(group: Path, quota_file: str, period_file: str | None) -> float | None:
    """Cores' worth of time that one cgroup grants."""
    try:
        words = (group / quota_file).read_text().split()
        period = int((group / period_file).read_text()) if period_file else int(words[1])
        return int(words[0]) / period if words[0] != "max" and int(words[0]) > 0 and period > 0 else None
    except (OSError, ValueError, IndexError):
        return None


def _limit(file: Path) -> int | None:
    """Bytes that one cgroup grants."""
    try:
        limit = int(file.read_text())  # "max" is no number
    except (OSError, ValueError):
        return None
    return limit if 0 < limit < UNLIMITED_BYTES else None
