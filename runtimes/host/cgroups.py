"""Read the CPU quota and the memory limit of this process from its cgroups, v2 or v1.

Every level from the process's own group to the root may have a limit. The tightest limit applies.
"""

import math
from pathlib import Path

OWN = Path("proc/self/cgroup")

QUOTAS = (
    ("", ("sys/fs/cgroup", "sys/fs/cgroup/unified"), ("cpu.max", None)),
    ("cpu", ("sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct"), ("cpu.cfs_quota_us", "cpu.cfs_period_us")),
)
"""For cgroup v2 and v1: name of the controller in `OWN`, mount points of its tree, files of the quota and of its period (v2 has one file
for both)."""

MEMORY_LIMITS = (
    ("", ("sys/fs/cgroup", "sys/fs/cgroup/unified"), "memory.max", "memory.current"),
    ("memory", ("sys/fs/cgroup/memory",), "memory.limit_in_bytes", "memory.usage_in_bytes"),
)
"""For cgroup v2 and v1: name of the controller, mount points, files of the limit and of the memory in use."""

UNLIMITED_BYTES = 1 << 60
"""Limits from this value on mean "no limit": v1 shows the largest number of whole pages."""


def quota_cores(root: Path = Path("/")) -> int | None:
    """Return the tightest CPU quota in cores, rounded up; None without a quota."""
    for controller, mounts, files in QUOTAS:
        quotas = [cores for group in _groups(root, controller, mounts) if (cores := _quota(group, *files)) is not None]
        if quotas:
            return math.ceil(min(quotas))
    return None


def memory_limit_bytes(root: Path = Path("/")) -> int | None:
    """Return the tightest memory limit in bytes; None without a limit."""
    return min((limit for limit, _ in _memory_limits(root)), default=None)


def memory_left_bytes(root: Path = Path("/")) -> int | None:
    """Return the memory in bytes that this process and its children may still use within the limits; None without a limit.

    Cached file pages that are not in active use do not count as used: the kernel drops them when memory is short.
    """
    return min((max(0, limit - used) for limit, used in _memory_limits(root)), default=None)


def _memory_limits(root: Path) -> list[tuple[int, int]]:
    """Return limit and used bytes for each level that has a limit."""
    for controller, mounts, limit_file, usage_file in MEMORY_LIMITS:
        groups = [(group, limit) for group in _groups(root, controller, mounts) if (limit := _limit(group / limit_file)) is not None]
        if groups:
            return [(limit, _used(group, usage_file)) for group, limit in groups]
    return []


def cpu_cgroups(root: Path) -> list[Path]:
    """Return the folders of the CPU cgroups, v2 and v1, from this process's own to the root, for every mount point."""
    return [group for controller, mounts, _ in QUOTAS for group in _groups(root, controller, mounts)]


def _groups(root: Path, controller: str, mounts: tuple[str, ...]) -> list[Path]:
    """Return the folders of this process's cgroup and its parents, for each mount point of a controller."""
    within = _own_cgroups(root).get(controller, Path())
    return [root / mount / level for mount in mounts for level in (within, *within.parents)]


def _own_cgroups(root: Path) -> dict[str, Path]:
    """Return controller → path of this process's cgroup below the mount point; "" for v2. A path with ".." becomes the root."""
    try:
        lines = (root / OWN).read_text().splitlines()
    except OSError:
        return {}
    fields = [line.split(":", 2) for line in lines if line.count(":") >= 2]
    paths = {name: Path(path.lstrip("/")) for _, names, path in fields for name in names.split(",")}
    return {name: Path() if ".." in path.parts else path for name, path in paths.items()}


def _quota(group: Path, quota_file: str, period_file: str | None) -> float | None:
    """Return the CPU quota of one cgroup in cores, or None."""
    try:
        words = (group / quota_file).read_text().split()
        period = int((group / period_file).read_text()) if period_file else int(words[1])
        return int(words[0]) / period if words[0] != "max" and int(words[0]) > 0 and period > 0 else None
    except (OSError, ValueError, IndexError):
        return None


def _limit(file: Path) -> int | None:
    """Return the memory limit of one cgroup in bytes, or None."""
    try:
        limit = int(file.read_text())  # "max" is not a number
    except (OSError, ValueError):
        return None
    return limit if 0 < limit < UNLIMITED_BYTES else None


def _used(group: Path, usage_file: str) -> int:
    """Return the memory in use in one cgroup in bytes, without inactive file pages; 0 if unknown."""
    try:
        used = int((group / usage_file).read_text())
    except (OSError, ValueError):
        return 0
    try:
        counters = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return max(0, used - int(counters.get("total_inactive_file", counters.get("inactive_file", 0))))
    except (OSError, ValueError):
        return used
