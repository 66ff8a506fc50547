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

CPU_QUOTAS = (("sys/fs/cgroup/cpu.max", None), ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "sys/fs/cgroup/cpu/cpu.cfs_period_us"))
"""Files of the quota and of its period of cgroup v2, where one file holds both, and v1."""


@dataclass(frozen=True, kw_only=True)
class Host:
    """What a choice of artifact depends on."""

    cpu: str
    machine: str
    """Processor family as Python names it: x86_64, aarch64, arm64, AMD64."""
    cpu_features: frozenset[str]
    cores: int
    """Cores this process may use."""
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
    """Cores this process may keep busy: its affinity, bounded by the cgroup's quota (v2 or v1)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, quota_cores(root) or cores))


def quota_cores(root: Path = Path("/")) -> int | None:
    """Cores' worth of time, rounded up, that the cgroup grants; None without a quota."""
    for quota_file, period_file in CPU_QUOTAS:
        try:
            words = (root / quota_file).read_text().split()
            period = int((root / period_file).read_text()) if period_file else int(words[1])
            if words[0] != "max" and int(words[0]) > 0:
                return math.ceil(int(words[0]) / period)
        except (OSError, ValueError, IndexError, ZeroDivisionError):
            continue
    return None


def _cpuinfo(root: Path) -> dict[str, str]:
    """First processor's block of /proc/cpuinfo; empty where there is none."""
    try:
        block = (root / "proc/cpuinfo").read_text(errors="replace").split("\n\n", 1)[0]
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in block.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}
