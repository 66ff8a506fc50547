"""Examine this machine: collect facts about it, its engines and artifacts, and derive findings and a ranking of recipes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from exporters.recipes import RECIPES
from runtimes.artifact.folder import Artifact, open_artifact
from runtimes.artifact.manifest import MANIFEST_NAME
from runtimes.engines.offer import Int8SelfTest
from runtimes.errors import ArtifactMissingError
from runtimes.host.facts import Host, read_host
from runtimes.selection.fitness import drop_incorrect
from runtimes.selection.ranking import Choice, Runnable, rank_candidates
from toolkit.doctor.checks import check_artifacts, check_engines, check_files, check_floors, check_int8_selftest
from toolkit.doctor.engines import ProbedEngine, probe_engines
from toolkit.doctor.finding import LEVELS, PROBLEM, Finding
from toolkit.doctor.machine import MachineFacts, installed, read_machine, requirements


@dataclass(frozen=True, kw_only=True)
class Examination:
    """The result of `toolkit doctor`."""

    machine: MachineFacts
    packages: dict[str, str]
    """Installed package → version."""
    engines: dict[str, ProbedEngine]
    recipes: tuple[Choice, ...]
    """Recipes that run on this machine, best first."""
    artifacts: tuple[Choice, ...] | None
    """Artifacts of the given path that run on this machine, best first; None without a path."""
    findings: tuple[Finding, ...]
    """Most severe first."""

    @property
    def healthy(self) -> bool:
        """Whether no finding is a problem."""
        return all(finding.level != PROBLEM for finding in self.findings)


def examine(path: Path | None) -> Examination:
    """Examine this machine and, if a path is given, the artifact or the folder of artifacts there.

    Raises:
        ArtifactMissingError, ManifestError, ManifestVersionError: The path has no artifact, or its manifest cannot be read.
    """
    artifacts, damages = (None, []) if path is None else check_files(_artifacts(path))
    machine, packages, installed_host = read_machine(), installed(), read_host()
    engines = probe_engines(installed_host)
    host = replace(installed_host, libraries=frozenset(runtime for runtime, engine in engines.items() if engine.offer))
    selftest = next((engine.offer.product for engine in engines.values() if engine.offer and engine.offer.product), None)
    recipes = _ranked({recipe.name: recipe for recipe in RECIPES}, host, selftest)
    chosen = None if artifacts is None else _ranked({artifact.path.name: artifact.manifest for artifact in artifacts}, host, selftest)
    findings = [
        *damages,
        *check_floors(packages, requirements()),
        *check_engines(machine, engines),
        *check_int8_selftest(host, selftest),
        *(check_artifacts(artifacts, chosen or (), host, machine, packages, selftest) if artifacts is not None else ()),
    ]
    return Examination(
        machine=machine,
        packages=packages,
        engines=engines,
        recipes=recipes,
        artifacts=chosen,
        findings=tuple(sorted(findings, key=lambda finding: LEVELS.index(finding.level))),
    )


def _ranked(candidates: Mapping[str, Runnable], host: Host, selftest: Int8SelfTest | None) -> tuple[Choice, ...]:
    """Return the candidates that run here, best first, with the same functions as `runtimes.load`."""
    return tuple(rank_candidates(drop_incorrect(candidates, host, selftest), host))


def _artifacts(path: Path) -> list[Artifact]:
    """Open the artifact at a path, or the artifacts of a folder."""
    if (path / MANIFEST_NAME).is_file():
        return [open_artifact(path)]
    manifests = sorted(path.glob(f"[!.]*/{MANIFEST_NAME}"))
    if not manifests:
        raise ArtifactMissingError(path)
    return [open_artifact(file.parent) for file in manifests]
