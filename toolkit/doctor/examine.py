"""The whole examination: facts of the machine, of the engines and of artifacts go in, findings and a recommendation come out."""

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
from toolkit.doctor.checks import check_artifacts, check_engines, check_floors, check_product
from toolkit.doctor.engines import Engine, ask_engines
from toolkit.doctor.finding import LEVELS, PROBLEM, Finding
from toolkit.doctor.machine import Machine, installed, read_machine, requirements


@dataclass(frozen=True, kw_only=True)
class Examination:
    """All that the doctor says."""

    machine: Machine
    packages: dict[str, str]
    """Installed package → version."""
    engines: dict[str, Engine]
    recipes: tuple[Choice, ...]
    """Recipes that run here, best first."""
    artifacts: tuple[Choice, ...] | None
    """Likewise of the artifacts that were asked about; None where none was."""
    findings: tuple[Finding, ...]
    """Worst first."""

    @property
    def healthy(self) -> bool:
        """Whether nothing is a problem."""
        return all(finding.level != PROBLEM for finding in self.findings)


def examine(path: Path | None) -> Examination:
    """Examine this machine, and how it gets on with an artifact or with a folder of them.

    Raises:
        ArtifactMissingError, ManifestError, ManifestVersionError: The path holds no artifact that can be read.
    """
    artifacts = None if path is None else _artifacts(path)
    machine, packages, shown = read_machine(), installed(), read_host()
    engines = ask_engines(shown)
    host = replace(shown, libraries=frozenset(runtime for runtime, engine in engines.items() if engine.offer))
    product = next((engine.offer.product for engine in engines.values() if engine.offer and engine.offer.product), None)
    recipes = _ranked({recipe.name: recipe for recipe in RECIPES}, host, product)
    chosen = None if artifacts is None else _ranked({one.path.name: one.manifest for one in artifacts}, host, product)
    findings = [
        *check_floors(packages, requirements()),
        *check_engines(machine, engines),
        *check_product(host, product),
        *(check_artifacts(artifacts, chosen or (), host, machine, packages, product) if artifacts is not None else ()),
    ]
    return Examination(
        machine=machine,
        packages=packages,
        engines=engines,
        recipes=recipes,
        artifacts=chosen,
        findings=tuple(sorted(findings, key=lambda finding: LEVELS.index(finding.level))),
    )


def _ranked(held: Mapping[str, Runnable], host: Host, product: Int8SelfTest | None) -> tuple[Choice, ...]:
    """What `runtimes.load` would take of them, best first: the same two functions."""
    return tuple(rank_candidates(drop_incorrect(held, host, product), host))


def _artifacts(path: Path) -> list[Artifact]:
    """Open an artifact, or those of a folder."""
    if (path / MANIFEST_NAME).is_file():
        return [open_artifact(path)]
    found = sorted(path.glob(f"[!.]*/{MANIFEST_NAME}"))
    if not found:
        raise ArtifactMissingError(path)
    return [open_artifact(file.parent) for file in found]
