"""Facts about this machine that decide which artifact fits it and how many threads it gets. Nothing heavy is imported."""

import importlib.util
import math
import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path

CPU_FEATURES = {
    "avx2": ("avx2",),
    "avx512": ("avx512f", "avx512bw", "avx512vl", "avx512dq"),
    "vnni": ("avx512_vnni", "avx_vnni"),
    "amx": ("amx_int8",),
    "dotprod": ("asimddp",),
    "i8mm": ("i8mm",),
}
"""Our word for a CPU feature → the kernel's flags; all of them are needed, but for VNNI, which has two encodings."""

LIBRARIES = {"ort": "onnxruntime", "torch": "torch"}
"""Runtime → the library it needs."""

CUDA_SIGNS = ("proc/driver/nvidia/version", "dev/dxg")
"""Files of NVIDIA's driver on Linux and on Windows' Linux."""

CGROUPS = Path("proc/self/cgroup")
QUOTAS = (
    ("", ("sys/fs/cgroup", "sys/fs/cgroup/unified"), ("cpu.max", None)),
    ("cpu", ("sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct"), ("cpu.cfs_quota_us", "cpu.cfs_period_us")),
)
"""Of cgroup v2 and v1: the controller's name in `CGROUPS`, where its tree is mounted, and the files of the quota and of its period (v2
has both in one)."""

SIBLINGS = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
"""Logical CPUs that share a core with this one, itself included."""


@dataclass(frozen=True, kw_only=True)
class Host:
    """What a choice of artifact depends on."""

    cpu: str
    machine: str
    """Processor family as Python names it: x86_64, aarch64, arm64, AMD64."""
    cpu_features: frozenset[str]
    cores: int
    """Physical cores this process may keep busy: the default number of threads."""
    libraries: frozenset[str]
    """Runtimes whose library is installed."""
    cuda: bool
    """An NVIDIA GPU with its driver is present."""


@cache
def read_host(root: Path = Path("/")) -> Host:
    """Look at this machine, or at another one's `proc`, `sys` and `dev` below a root."""
    info = _cpuinfo(root)
    flags = set((info.get("flags") or info.get("Features") or "").split())
    features = {name for name, needed in CPU_FEATURES.items() if (any if name == "vnni" else all)(flag in flags for flag in needed)}
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        features.add("dotprod")  # every Apple M chip has it; macOS shows no /proc/cpuinfo
    return Host(
        cpu=info.get("model name") or info.get("Model") or info.get("Hardware") or platform.machine(),  # processor() starts a process
        machine=platform.machine(),
        cpu_features=frozenset(features),
        cores=usable_cores(root),
        libraries=frozenset(runtime for runtime, library in LIBRARIES.items() if importlib.util.find_spec(library) is not None),
        cuda=any((root / sign).exists() for sign in CUDA_SIGNS),
    )


def usable_cores(root: Path = Path("/")) -> int:
    """Cores this process may keep busy: the physical ones of its affinity, bounded by its cgroups' quota (v2 or v1).

    Two threads on one core share its multipliers, so that a second one mostly waits.
    """
    cores = _physical_cores(root, sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, quota_cores(root) or cores))


def _physical_cores(root: Path, cpus: list[int]) -> int:
    """Count the cores of logical CPUs; one whose siblings are not told is a core."""
    cores = set()
    for cpu in cpus:
        try:
            cores.add((root / SIBLINGS.format(cpu)).read_text().strip())
        except OSError:
            cores.add(f"alone {cpu}")
    return len(cores)


def quota_cores(root: Path = Path("/")) -> int | None:
    """Cores' worth of time, rounded up, that the tightest cgroup from this process's own up to the root grants; None without a quota."""
    for controller, _, files in QUOTAS:
        quotas = [cores for group in cpu_cgroups(root, controller) if (cores := _quota(group, *files)) is not None]
        if quotas:
            return math.ceil(min(quotas))
    return None


def cpu_cgroups(root: Path, controller: str) -> list[Path]:
    """Folders of this process's cgroup of a controller in `QUOTAS`, and of those above it, wherever the tree may be mounted."""
    within = _own_cgroups(root).get(controller, Path())
    mounts = next(mounts for name, mounts, _ in QUOTAS if name == controller)
    return [root / mount / level for mount in mounts for level in (within, *within.parents)]


def _own_cgroups(root: Path) -> dict[str, Path]:
    """Controller → this process's cgroup below the controller's mount; "" is v2's. A path that leaves the mount counts as its root."""
    try:
        lines = (root / CGROUPS).read_text().splitlines()
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


def _cpuinfo(root: Path) -> dict[str, str]:
    """First processor's block of /proc/cpuinfo; empty where there is none."""
    try:
        block = (root / "proc/cpuinfo").read_text(errors="replace").split("\n\n", 1)[0]
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in block.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}
