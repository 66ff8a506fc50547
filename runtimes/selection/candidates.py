"""The artifacts of a folder, ranked for this machine."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from runtimes.artifact.folder import open_artifact
from runtimes.artifact.manifest import MANIFEST_NAME, Manifest
from runtimes.engine_registry import ENGINES, missing_library
from runtimes.errors import ArtifactMissingError, RequestError, ToolkitError
from runtimes.host.facts import read_host
from runtimes.selection.fitness import drop_incorrect, int8_selftest_for
from runtimes.selection.ranking import Choice, rank_candidates

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The artifacts of a folder, ranked for this machine."""

    manifests: Mapping[str, Manifest]
    ranked: Sequence[Choice]
    """Artifacts that can run on this machine, best first."""
    unusable: Sequence[ToolkitError]
    """Errors of the artifacts that cannot be read."""


def find_candidates(path: Path, device: str = "auto") -> Candidates:
    """Read the manifests of a folder and rank them for this machine. Log a warning for each unreadable one.

    Raises:
        ArtifactMissingError: The folder contains no artifact.
        RequestError: The folder contains artifacts of different checkpoints.
    """
    names = sorted(child.parent.name for child in path.glob(f"[!.]*/{MANIFEST_NAME}"))  # hidden folders are not finished
    if not names:
        raise ArtifactMissingError(path)
    manifests: dict[str, Manifest] = {}
    unusable: list[ToolkitError] = []
    for name in names:
        try:
            manifests[name] = open_artifact(path / name).manifest
        except ToolkitError as error:
            logger.warning("%s; trying the others", error)
            unusable.append(error)
    if len({manifest.source.sha256 for manifest in manifests.values()}) > 1:
        raise RequestError(f"{path}: contains artifacts of different checkpoints; name one of {', '.join(manifests)}")
    host = read_host()
    correct = drop_incorrect(manifests, host, int8_selftest_for(manifests.values()))
    ranked = rank_candidates(correct, host, device)
    best = next(iter(rank_candidates(correct, replace(host, libraries=frozenset(ENGINES)), device)), None)
    if best is not None and best not in ranked:
        logger.warning("%s; trying the next best", missing_library(best.name, manifests[best.name].runtime))
    return Candidates(manifests=manifests, ranked=ranked, unusable=unusable)
