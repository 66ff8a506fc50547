"""Render an examination as text: facts, recipes that run here, and remedies."""

from collections.abc import Iterable

from toolkit.doctor.examine import Examination
from toolkit.doctor.finding import NOTE, PROBLEM, WARNING
from toolkit.doctor.machine import MachineFacts

SHOWN_RECIPES = 3
MARKS = {PROBLEM: "✗", WARNING: "!", NOTE: "·"}


def render(examination: Examination) -> str:
    """Return the text of an examination. The number of problems is last, next to the shell's prompt."""
    engines = [
        (engine.library, ", ".join(engine.offer.providers) or "nothing" if engine.offer else f"does not work: {engine.error}")
        for engine in examination.engines.values()
    ]
    selftests = [
        ("INT8 products", "exact" if selftest.right else f"saturate: {selftest.actual:,} instead of {selftest.expected:,}")
        for engine in examination.engines.values()
        if engine.offer and (selftest := engine.offer.product)
    ]
    blocks = [
        _block("Machine", _machine(examination.machine)),
        _block("Packages", examination.packages.items()),
        _block("Engines", [*engines, *selftests]),
        _block("Best recipes for this machine", [(choice.name, choice.why) for choice in examination.recipes[:SHOWN_RECIPES]]),
    ]
    if examination.artifacts is not None:
        blocks.append(
            _block(
                "Artifacts that fit, best first", [(choice.name, f"on {choice.device}: {choice.why}") for choice in examination.artifacts]
            )
        )
    findings = examination.findings
    advice = [f"{MARKS[finding.level]} {finding.text}" + (f"\n    → {finding.remedy}" if finding.remedy else "") for finding in findings]
    problems = sum(finding.level == PROBLEM for finding in findings)
    verdict = f"{problems or 'No'} problem{'s' if problems > 1 else ''} found."
    blocks += [advice, [verdict]]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def _machine(machine: MachineFacts) -> Iterable[tuple[str, str]]:
    present = [name for name, reported in machine.features.items() if reported]
    absent = [name for name, reported in machine.features.items() if not reported]
    quota = f"container quota {machine.quota_cores}" if machine.quota_cores else "no quota"
    limit = f"container limit {_gib(machine.memory_limit_bytes)}" if machine.memory_limit_bytes else "no limit"
    yield "cpu", f"{machine.cpu} ({machine.family})"
    yield "features", (", ".join(present) or "no relevant ones") + (f"; without {', '.join(absent)}" if absent else "")
    yield "cores", f"{machine.cores} usable of {machine.logical_cores} logical; {quota}"
    yield "memory", f"{_gib(machine.memory_bytes)}; {limit}"
    yield "gpu", "NVIDIA driver installed" if machine.nvidia_driver else "no NVIDIA driver"
    yield "system", f"{machine.system}, Python {machine.python}"


def _gib(size: int | None) -> str:
    return "unknown" if size is None else f"{size / 2**30:.1f} GiB"


def _block(title: str, pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Return a title and aligned lines; an empty block has the line "none"."""
    rows = list(pairs)
    width = max((len(name) for name, _ in rows), default=0)
    return [title, *([f"  {name:<{width}}  {text}" for name, text in rows] or ["  none"])]
