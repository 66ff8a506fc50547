"""Versions with holes that are known: what is installed goes in, what is wrong with it comes out."""

import tarfile
from collections.abc import Mapping
from dataclasses import dataclass

from runtimes.engine_registry import ENGINES
from toolkit.doctor.finding import NOTE, PROBLEM, Finding
from toolkit.doctor.versions import release


@dataclass(frozen=True)
class Hole:
    """What versions of a package below a floor let happen."""

    package: str
    fixed_in: str
    what: str
    source: str


HOLES = (
    Hole("onnx", "1.21", "a model's external data may lie outside its folder", "CVE-2026-27489, CVE-2026-34446"),
    Hole("pillow", "12.2", "a small picture may fill the memory", "CVE-2026-40192"),
    Hole("torch", "2.10", "a checkpoint may corrupt memory even with weights_only", "CVE-2026-24747"),
    *(
        Hole(name, "1.27", "a damaged graph may read beyond a bias, or grow without bound", "onnxruntime#28499, #28055")
        for name in ENGINES["ort"].distributions
    ),
    Hole("nltk", "3.9", "what it downloads is unpickled", "CVE-2024-39705"),
)
"""The floors of pyproject.toml are not below these."""


def find_holes(versions: Mapping[str, str]) -> list[Finding]:
    """Name the holes of installed versions, package → version."""
    return [
        Finding(
            level=PROBLEM,
            text=f"{hole.package} {versions[hole.package]} has a known hole: {hole.what} ({hole.source}, fixed in {hole.fixed_in})",
            remedy=f"pip install '{hole.package}>={hole.fixed_in}'",
        )
        for hole in HOLES
        if hole.package in versions and release(versions[hole.package]) < release(hole.fixed_in)
    ]


def old_tarfile() -> list[Finding]:
    """Say whether this Python lacks the fixes of 2025; nothing here extracts with it, so it is no problem."""
    if hasattr(tarfile, "LinkFallbackError"):  # came with them
        return []
    text = "this Python's tarfile lacks the fixes of 2025 (CVE-2025-4517 and others); the toolkit has an extractor of its own"
    return [Finding(level=NOTE, text=text, remedy=None)]
