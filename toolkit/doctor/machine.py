"""Read facts about this machine and its installed packages, from files of the kernel and package metadata."""

import os
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from runtimes.engine_registry import ENGINES
from runtimes.host.cgroups import memory_limit_bytes, quota_cores
from runtimes.host.facts import CPU_FEATURES, memory_bytes, read_host

PACKAGES = (
    *("blip-toolkit", "numpy", "pillow", "tokenizers"),
    *(name for engine in ENGINES.values() for name in engine.distributions),
    *("transformers", "onnx", "optimum-onnx", "safetensors", "nltk", "evaluate", "psutil"),
)
"""Packages for captioning, then packages for exporting and measuring."""

FAMILIES = {
    "x86_64": ("avx2", "avx512", "vnni", "amx"),
    "amd64": ("avx2", "avx512", "vnni", "amx"),
    "aarch64": ("dotprod", "i8mm"),
    "arm64": ("dotprod", "i8mm"),
}
"""Processor family → features that a CPU of it may have."""


@dataclass(frozen=True, kw_only=True)
class MachineFacts:
    """Facts about a machine that matter for captioning."""

    cpu: str
    family: str
    """`platform.machine()`: x86_64, aarch64, arm64 or AMD64."""
    features: dict[str, bool]
    """CPU feature of the family → whether this CPU reports it."""
    logical_cores: int
    cores: int
    """Physical cores that this process may use; the default number of threads."""
    quota_cores: int | None
    """CPU quota of the container, rounded up; None without a quota."""
    memory_bytes: int | None
    memory_limit_bytes: int | None
    """Memory limit of the container; None without a limit."""
    nvidia_driver: bool
    system: str
    python: str


def read_machine(root: Path = Path("/")) -> MachineFacts:
    """Read the facts from `proc`, `sys` and `dev` in a root folder: this machine's, or a copy of another's for tests."""
    host = read_host(root)
    possible = FAMILIES.get(host.machine.lower(), tuple(CPU_FEATURES))
    return MachineFacts(
        cpu=host.cpu,
        family=host.machine,
        features={name: name in host.cpu_features for name in possible} | dict.fromkeys(host.cpu_features - set(possible), True),
        logical_cores=os.cpu_count() or 1,
        cores=host.cores,
        quota_cores=quota_cores(root),
        memory_bytes=memory_bytes(root),
        memory_limit_bytes=memory_limit_bytes(root),
        nvidia_driver=host.cuda,
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
    )


def installed() -> dict[str, str]:
    """Return package → version for the installed packages of PACKAGES, without importing them."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def requirements() -> list[str]:
    """Return the requirements of the installed distribution, including all extras; empty if the toolkit is not installed."""
    try:
        return metadata.requires("blip-toolkit") or []
    except metadata.PackageNotFoundError:
        return []
