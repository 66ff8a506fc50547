"""An examination as text for people: blocks of facts, what runs here, and what to do."""

from collections.abc import Iterable

from toolkit.doctor.examine import Examination
from toolkit.doctor.finding import NOTE, PROBLEM, WARNING
from toolkit.doctor.machine import Machine

SHOWN_RECIPES = 3
MARKS = {PROBLEM: "✗", WARNING: "!", NOTE: "·"}


def render(found: Examination) -> str:
    """Return all of it, the verdict last, where a person's eye is."""
    engines = [
        (engine.library, ", ".join(engine.offer.providers) or "nothing" if engine.offer else f"does not work: {engine.error}")
        for engine in found.engines.values()
    ]
    products = [
        ("integer products", "right" if product.right else f"saturate: {product.found:,} where {product.expected:,} is right")
        for engine in found.engines.values()
        if engine.offer and (product := engine.offer.product)
    ]
    blocks = [
        _block("Machine", _machine(found.machine)),
        _block("Packages", found.packages.items()),
        _block("Engines", [*engines, *products]),
        _block("Recipes that fit, best first", [(choice.name, choice.why) for choice in found.recipes[:SHOWN_RECIPES]]),
    ]
    if found.artifacts is not None:
        blocks.append(
            _block("Artifacts that fit, best first", [(choice.name, f"on {choice.device}: {choice.why}") for choice in found.artifacts])
        )
    advice = [f"{MARKS[one.level]} {one.text}" + (f"\n    → {one.remedy}" if one.remedy else "") for one in found.findings]
    problems = sum(one.level == PROBLEM for one in found.findings)
    verdict = f"{problems or 'No'} problem{'s' if problems > 1 else ''} found."
    blocks += [advice, [verdict]]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def _machine(machine: Machine) -> Iterable[tuple[str, str]]:
    shown = [name for name, there in machine.features.items() if there]
    absent = [name for name, there in machine.features.items() if not there]
    quota = f"a container grants {machine.quota_cores}" if machine.quota_cores else "no quota"
    limit = f"a container grants {_gib(machine.memory_limit_bytes)}" if machine.memory_limit_bytes else "no limit"
    yield "cpu", f"{machine.cpu} ({machine.family})"
    yield "features", (", ".join(shown) or "none that matter") + (f"; not {', '.join(absent)}" if absent else "")
    yield "cores", f"{machine.cores} to use of {machine.logical_cores} logical; {quota}"
    yield "memory", f"{_gib(machine.memory_bytes)}; {limit}"
    yield "gpu", "an NVIDIA driver" if machine.nvidia_driver else "no NVIDIA driver"
    yield "system", f"{machine.system}, Python {machine.python}"


def _gib(size: int | None) -> str:
    return "unknown" if size is None else f"{size / 2**30:.1f} GiB"


def _block(title: str, pairs: Iterable[tuple[str, str]]) -> list[str]:
    """A title and aligned lines; a block without lines says so."""
    listed = list(pairs)
    width = max((len(name) for name, _ in listed), default=0)
    return [title, *([f"  {name:<{width}}  {text}" for name, text in listed] or ["  none"])]
