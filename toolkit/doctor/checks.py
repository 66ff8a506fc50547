"""What facts mean for a person: engines, the self-check and artifacts go in, findings come out. Pure functions."""

from collections.abc import Iterable, Mapping, Sequence

from packaging.requirements import Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from runtimes.artifact.folder import Artifact
from runtimes.engine_registry import ENGINES
from runtimes.engines.offer import Int8SelfTest
from runtimes.host.facts import Host
from runtimes.selection.fitness import check_cpu
from runtimes.selection.ranking import Choice
from toolkit.doctor.engines import Engine
from toolkit.doctor.finding import NOTE, PROBLEM, WARNING, Finding
from toolkit.doctor.machine import Machine

PORTABLE = "onnx-int8"
EXPORT = f"toolkit export CHECKPOINT --recipe {PORTABLE}"
FASTEST = min(ENGINES.values(), key=lambda engine: engine.rank)
ENGINE = f"pip install 'blip-toolkit[{FASTEST.extra}]'"
DISTRIBUTIONS = {engine.library: engine.distributions for engine in ENGINES.values()}


def check_engines(machine: Machine, engines: Mapping[str, Engine]) -> list[Finding]:
    """Say which engines are missing or do not start."""
    if not engines:
        return [Finding(level=PROBLEM, text="no engine is installed, so nothing can caption here", remedy=ENGINE)]
    found = []
    broken = WARNING if any(engine.offer for engine in engines.values()) else PROBLEM
    for engine in engines.values():
        if engine.error is not None:
            text = f"{engine.library} is installed and does not work: {engine.error}"
            found.append(Finding(level=broken, text=text, remedy=f"pip install --force-reinstall {engine.library}"))
    if FASTEST.name not in engines:
        found.append(Finding(level=WARNING, text=f"{FASTEST.library}, the faster engine, is not installed", remedy=ENGINE))
    for engine in engines.values():
        if engine.offer and not engine.offer.providers:
            text = f"{engine.library} has no quantized engine here, so its INT8 recipes cannot run"
            found.append(Finding(level=WARNING, text=text, remedy=EXPORT))
    if machine.nvidia_driver and not any(engine.offer and engine.offer.cuda for engine in engines.values()):
        text = "there is an NVIDIA driver, and no engine here uses it"
        found.append(Finding(level=NOTE, text=text, remedy="pip install 'blip-toolkit[ort-gpu]' in place of [ort]"))
    return found


def check_floors(packages: Mapping[str, str], requirements: Iterable[str]) -> list[Finding]:
    """Return which packages are older than this toolkit needs them, for security or for their interface.

    Args:
        packages: Installed package → version.
        requirements: Of the toolkit's distribution, of all extras.
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
    """Whether a version is in ranges like ">=2.10,<2.14"; text that is neither a version nor a range excludes nothing."""
    try:
        return SpecifierSet(ranges).contains(Version(version), prereleases=True)
    except (InvalidSpecifier, InvalidVersion):
        return True


def check_product(host: Host, product: Int8SelfTest | None) -> list[Finding]:
    """Say what the self-check of integer products means for recipes."""
    if product is None or product.right:
        return []
    sums = f"integer products of full range saturate here ({product.found:,} where {product.expected:,} is right)"
    hidden = "vnni" in host.cpu_features
    text = f"{sums} although the CPU shows vnni, as in an emulator" if hidden else f"{sums}, as on every x86 CPU without VNNI"
    return [Finding(level=WARNING if hidden else NOTE, text=text, remedy=f"portable recipes, for example {PORTABLE}, are right here")]


def check_artifacts(
    artifacts: Sequence[Artifact],
    chosen: Sequence[Choice],
    host: Host,
    machine: Machine,
    packages: Mapping[str, str],
    product: Int8SelfTest | None,
) -> list[Finding]:
    """Say which artifacts are wrong, slow or cannot run here; in a folder that holds a better one, that is no more than a note."""
    spared = len(artifacts) > 1 and bool(chosen)
    problem, warning, export = (NOTE, NOTE, None) if spared else (PROBLEM, WARNING, EXPORT)
    found = []
    if len(artifacts) > 1 and not chosen:
        found.append(Finding(level=PROBLEM, text="none of these artifacts can run here", remedy=EXPORT))
    memory = min((bound for bound in (machine.memory_bytes, machine.memory_limit_bytes) if bound is not None), default=None)
    for artifact in artifacts:
        name, manifest = artifact.path.resolve().name, artifact.manifest
        if manifest.runtime not in host.libraries:
            engine = ENGINES.get(manifest.runtime)
            text = f"{name} needs {engine.library if engine else manifest.runtime}, which is not here or does not work"
            found.append(Finding(level=problem, text=text, remedy=f"pip install 'blip-toolkit[{engine.extra}]'" if engine else None))
        for package, ranges in manifest.requires.items():
            there = next((packages[name] for name in (package, *DISTRIBUTIONS.get(package, ())) if name in packages), None)
            if there is not None and not satisfies(there, ranges):
                text = f"{name} needs {package} {ranges}, and {there} is installed"
                found.append(Finding(level=problem, text=text, remedy=f"pip install '{package}{ranges}'"))
        if unfit := check_cpu(manifest, host, product):
            found.append(Finding(level=problem if unfit.wrong else warning, text=f"{name} {unfit.why}", remedy=export))
        if manifest.target.device == "cuda" and not host.cuda:
            text = f"{name} is meant for a GPU and there is none here; on the CPU it is slow"
            found.append(Finding(level=warning, text=text, remedy=export))
        if memory is not None and artifact.total_bytes > memory:
            text = f"{name} has {artifact.total_bytes / 2**20:,.0f} MiB of files; this process may use {memory / 2**20:,.0f} MiB of memory"
            found.append(Finding(level=problem, text=text, remedy="a smaller recipe, for example onnx-int4"))
    return found
