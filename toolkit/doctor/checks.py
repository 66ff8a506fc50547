"""Derive findings from facts about engines, packages, the INT8 self-test and artifacts. Pure functions."""

from collections.abc import Iterable, Mapping, Sequence

from packaging.requirements import Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from runtimes.artifact.folder import Artifact
from runtimes.artifact.verified_files import open_verified
from runtimes.engine_registry import ENGINES
from runtimes.engines.offer import Int8SelfTest
from runtimes.errors import ToolkitError
from runtimes.host.facts import Host
from runtimes.selection.fitness import check_cpu
from runtimes.selection.ranking import Choice
from toolkit.doctor.engines import ProbedEngine
from toolkit.doctor.finding import NOTE, PROBLEM, WARNING, Finding
from toolkit.doctor.machine import MachineFacts

PORTABLE = "onnx-int8"
EXPORT = f"toolkit export CHECKPOINT --recipe {PORTABLE}"
FASTEST = min(ENGINES.values(), key=lambda engine: engine.rank)
ENGINE = f"pip install 'blip-toolkit[{FASTEST.extra}]'"
DISTRIBUTIONS = {engine.library: engine.distributions for engine in ENGINES.values()}


def check_engines(machine: MachineFacts, engines: Mapping[str, ProbedEngine]) -> list[Finding]:
    """Return findings about engines that are missing, do not start or do not use the GPU."""
    if not engines:
        return [Finding(level=PROBLEM, text="no engine is installed, so no artifact can run here", remedy=ENGINE)]
    findings = []
    broken = WARNING if any(engine.offer for engine in engines.values()) else PROBLEM
    for engine in engines.values():
        if engine.error is not None:
            text = f"{engine.library} is installed and does not work: {engine.error}"
            findings.append(Finding(level=broken, text=text, remedy=f"pip install --force-reinstall {engine.library}"))
    if FASTEST.name not in engines:
        findings.append(Finding(level=WARNING, text=f"{FASTEST.library}, the faster engine, is not installed", remedy=ENGINE))
    for engine in engines.values():
        if engine.offer and not engine.offer.providers:
            text = f"{engine.library} has no quantized engine here, so its INT8 recipes cannot run"
            findings.append(Finding(level=WARNING, text=text, remedy=EXPORT))
    if machine.nvidia_driver and not any(engine.offer and engine.offer.cuda for engine in engines.values()):
        text = "an NVIDIA driver is installed, but no engine here uses the GPU"
        findings.append(Finding(level=NOTE, text=text, remedy="pip install 'blip-toolkit[ort-gpu]' instead of [ort]"))
    return findings


def check_floors(packages: Mapping[str, str], requirements: Iterable[str]) -> list[Finding]:
    """Return a finding for each installed package that is older than the toolkit's lower bound (for security or for its interface).

    Args:
        packages: Installed package → version.
        requirements: Requirements of the toolkit's distribution, including all extras.
    """
    floors: dict[str, str] = {}
    for requirement in map(Requirement, requirements):
        for bound in requirement.specifier:
            if bound.operator == ">=" and requirement.name in packages:
                floors[requirement.name] = str(bound)
    return [
        Finding(level=WARNING, text=f"{name} {packages[name]} is older than this toolkit needs", remedy=f"pip install '{name}{floor}'")
        for name, floor in floors.items()
        if not satisfies(packages[name], floor)
    ]


def satisfies(version: str, ranges: str) -> bool:
    """Return whether a version is in ranges like ">=2.10,<2.14"; True if the version or the ranges cannot be parsed."""
    try:
        return SpecifierSet(ranges).contains(Version(version), prereleases=True)
    except (InvalidSpecifier, InvalidVersion):
        return True


def check_int8_selftest(host: Host, selftest: Int8SelfTest | None) -> list[Finding]:
    """Return a finding if INT8 products saturate on this CPU."""
    if selftest is None or selftest.right:
        return []
    sums = f"INT8 products of full range saturate here ({selftest.actual:,} instead of {selftest.expected:,})"
    emulated = "vnni" in host.cpu_features
    text = f"{sums} although the CPU reports VNNI, as in an emulator" if emulated else f"{sums}, as on every x86 CPU without VNNI"
    remedy = f"use portable recipes, for example {PORTABLE}: they do not saturate"
    return [Finding(level=WARNING if emulated else NOTE, text=text, remedy=remedy)]


def check_files(artifacts: Sequence[Artifact]) -> tuple[list[Artifact], list[Finding]]:
    """Compare the files of artifacts with their manifests; return the artifacts whose files are right, and findings about the others."""
    sound: list[Artifact] = []
    problems: list[str] = []
    for artifact in artifacts:
        try:
            with open_verified(artifact) as files:
                for entry in artifact.manifest.files.values():
                    if not entry.optional:
                        files.open(entry.role)
        except ToolkitError as error:
            problems.append(str(error))
        else:
            sound.append(artifact)
    level = WARNING if sound else PROBLEM  # `load` takes another artifact of the folder
    return sound, [Finding(level=level, text=problem, remedy="copy or unpack the artifact again") for problem in problems]


def check_artifacts(
    artifacts: Sequence[Artifact],
    chosen: Sequence[Choice],
    host: Host,
    machine: MachineFacts,
    packages: Mapping[str, str],
    selftest: Int8SelfTest | None,
) -> list[Finding]:
    """Return findings about artifacts that are wrong, slow or cannot run here.

    Args:
        artifacts: One artifact, or those of a folder. In a folder of which another artifact runs here, findings are notes.
        chosen: Those that `runtimes.load` would take, best first.
        host: CPU features and working engines of this machine.
        machine: Memory of this machine.
        packages: Installed package → version.
        selftest: Result of the INT8 self-test, None if no engine has run it.
    """
    alternative = len(artifacts) > 1 and bool(chosen)
    problem, warning, export = (NOTE, NOTE, None) if alternative else (PROBLEM, WARNING, EXPORT)
    findings = []
    if len(artifacts) > 1 and not chosen:
        findings.append(Finding(level=PROBLEM, text="none of these artifacts can run here", remedy=EXPORT))
    memory = min((bound for bound in (machine.memory_bytes, machine.memory_limit_bytes) if bound is not None), default=None)
    for artifact in artifacts:
        name, manifest = artifact.path.resolve().name, artifact.manifest
        if manifest.runtime not in host.libraries:
            engine = ENGINES.get(manifest.runtime)
            text = f"{name} needs {engine.library if engine else manifest.runtime}, which is not installed or does not work"
            findings.append(Finding(level=problem, text=text, remedy=f"pip install 'blip-toolkit[{engine.extra}]'" if engine else None))
        for package, ranges in manifest.requires.items():
            version = next((packages[name] for name in (package, *DISTRIBUTIONS.get(package, ())) if name in packages), None)
            if version is not None and not satisfies(version, ranges):
                text = f"{name} needs {package} {ranges}, but {version} is installed"
                findings.append(Finding(level=problem, text=text, remedy=f"pip install '{package}{ranges}'"))
        if unfit := check_cpu(manifest, host, selftest):
            findings.append(Finding(level=problem if unfit.wrong else warning, text=f"{name} {unfit.why}", remedy=export))
        if manifest.target.device == "cuda" and not host.cuda:
            text = f"{name} targets a GPU, and this machine has none; it is slow on the CPU"
            findings.append(Finding(level=warning, text=text, remedy=export))
        if memory is not None and artifact.total_bytes > memory:
            text = f"{name} has {artifact.total_bytes / 2**20:,.0f} MiB of files; this process may use {memory / 2**20:,.0f} MiB of memory"
            findings.append(Finding(level=problem, text=text, remedy="use a smaller recipe, for example onnx-int4"))
    return findings
