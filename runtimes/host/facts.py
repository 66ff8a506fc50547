"""Facts about this machine that determine the choice of an artifact and the number of threads. Imports no engine."""

import contextlib
import ctypes
import importlib.util
import itertools
import os
import platform
from dataclasses import dataclass
from pathlib import Path

from runtimes.engine_registry import ENGINES
from runtimes.host.cgroups import quota_cores

CPU_FEATURES = {
    "avx2": ("avx2",),
    "avx512": ("avx512f", "avx512bw", "avx512vl", "avx512dq"),
    "vnni": ("avx512_vnni", "avx_vnni"),
    "amx": ("amx_int8",),
    "dotprod": ("asimddp",),
    "i8mm": ("i8mm",),
}
"""Name of a CPU feature → flags of the kernel. All flags are needed; for VNNI, one of its two encodings."""

CUDA_DRIVERS = ("libcuda.so.1", "nvcuda.dll")
"""NVIDIA's driver library on Linux (WSL included) and on Windows."""

SIBLINGS = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
"""File that lists the logical CPUs of the same core, this one included."""


@dataclass(frozen=True, kw_only=True)
class Host:
    """The facts that the choice of an artifact depends on."""

    cpu: str
    machine: str
    """Processor family as returned by `platform.machine`: x86_64, aarch64, arm64, AMD64."""
    cpu_features: frozenset[str]
    cores: int
    """Physical cores that this process may use: the default number of threads."""
    libraries: frozenset[str]
    """Names of the engines whose library is installed."""
    cuda: bool
    """True if NVIDIA's driver can be loaded. Whether an engine can use it is known once it opens an artifact."""


def read_host(root: Path = Path("/")) -> Host:
    """Read the facts of this machine. They are not cached, since affinity, quota and installed libraries may change.

    Args:
        root: Folder that contains `proc` and `sys`.
    """
    info = _cpuinfo(root)
    flags = set((info.get("flags") or info.get("Features") or "").split())
    features = {name for name, needed in CPU_FEATURES.items() if (any if name == "vnni" else all)(flag in flags for flag in needed)}
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        features.add("dotprod")  # every Apple M chip has it, and macOS has no /proc/cpuinfo
    return Host(
        cpu=info.get("model name") or info.get("Model") or info.get("Hardware") or platform.machine(),  # processor() starts a subprocess
        machine=platform.machine(),
        cpu_features=frozenset(features),
        cores=usable_cores(root),
        libraries=frozenset(name for name, engine in ENGINES.items() if importlib.util.find_spec(engine.library) is not None),
        cuda=any(map(_loadable, CUDA_DRIVERS)),
    )


def _loadable(library: str) -> bool:
    """Return whether a shared library can be loaded. CUDA is not initialised, since a process with CUDA cannot fork."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def gpu_name(root: Path = Path("/")) -> str | None:
    """Return the model of the first NVIDIA GPU, as its driver names it on Linux; None if there is none or it is unknown."""
    for file in sorted(root.glob("proc/driver/nvidia/gpus/*/information")):
        with contextlib.suppress(OSError):
            for line in file.read_text(errors="replace").splitlines():
                key, _, value = line.partition(":")
                if key.strip() == "Model":
                    return value.strip()
    return None


def usable_cores(root: Path = Path("/")) -> int:
    """Return the number of cores that this process may use: the physical cores in its affinity, limited by its CPU quota.

    Logical CPUs are not counted: two threads on one core share its multipliers, so the second one mostly waits.
    """
    cores = _physical_cores(root, sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, quota_cores(root) or cores))


def usable_cpus(root: Path = Path("/")) -> int:
    """Return the number of logical CPUs that this process may use: those of its affinity, limited by its CPU quota."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cpus, quota_cores(root) or cpus))


def _physical_cores(root: Path, cpus: list[int]) -> int:
    """Return the number of cores of logical CPUs. A CPU with unknown siblings counts as a core."""
    cores = set()
    for cpu in cpus:
        try:
            cores.add((root / SIBLINGS.format(cpu)).read_text().strip())
        except OSError:
            cores.add(f"alone {cpu}")
    return len(cores)


def memory_bytes(root: Path = Path("/")) -> int | None:
    """Return the memory of the machine in bytes, without limits of a container; None if unknown."""
    with contextlib.suppress(OSError, StopIteration, ValueError, IndexError):
        lines = (root / "proc/meminfo").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("MemTotal:")).split()[1]) * 1024
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


def _cpuinfo(root: Path) -> dict[str, str]:
    """Return the first processor's block of /proc/cpuinfo as key → value; empty without that file."""
    try:
        with (root / "proc/cpuinfo").open(errors="replace") as lines:  # reading more makes the kernel compute the other blocks
            block = list(itertools.takewhile(str.strip, lines))
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in block if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}
