"""Facts about this machine and what is installed on it: the kernel's files and the metadata of packages go in, dataclasses come out."""

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
"""What captioning needs, then what exporting and measuring need."""

FAMILIES = {
    "x86_64": ("avx2", "avx512", "vnni", "amx"),
    "amd64": ("avx2", "avx512", "vnni", "amx"),
    "aarch64": ("dotprod", "i8mm"),
    "arm64": ("dotprod", "i8mm"),
}
"""Processor family → the CPU features that it may have."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The machine, as far as captions depend on it."""

    cpu: str
    family: str
    """As Python names it: x86_64, aarch64, arm64, AMD64."""
    features: dict[str, bool]
    """What such a processor may have → whether this one shows it."""
    logical_cores: int
    cores: int
    """Physical ones that this process may keep busy: the default number of threads."""
    quota_cores: int | None
    """What a container grants, rounded up; None without a quota."""
    memory_bytes: int | None
    memory_limit_bytes: int | None
    """What a container grants; None without a limit."""
    nvidia_driver: bool
    system: str
    python: str


def read_machine(root: Path = Path("/")) -> Machine:
    """Look at this machine, or at another one's `proc`, `sys` and `dev` below a root."""
    host = read_host(root)
    possible = FAMILIES.get(host.machine.lower(), tuple(CPU_FEATURES))
    return Machine(
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
    """Package → version of those in PACKAGES that are installed; none is imported."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def requirements() -> list[str]:
    """Return what this toolkit's distribution requires, of all extras; nothing where it runs from a source tree alone."""
    try:
        return metadata.requires("blip-toolkit") or []
    except metadata.PackageNotFoundError:
        return []
