"""Check whether INT8 products are correct on this CPU, and which artifacts need that.

x86 without VNNI adds two u8·s8 products in 16 bits (`VPMADDUBSW`). Weights that use all 8 bits saturate there, so an artifact that is
correct on the machine of its export returns wrong captions (onnxruntime#6004). CPU flags are not reliable: emulators and virtual machines
show flags without the feature, or hide features. So onnxruntime computes one small product with a known result, in half a millisecond.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from runtimes.engines.offer import Int8SelfTest
from runtimes.host.facts import Host

if TYPE_CHECKING:
    from runtimes.selection.ranking import Runnable

R = TypeVar("R", bound="Runnable")


@dataclass(frozen=True, kw_only=True)
class CpuProblem:
    """A reason against an artifact on this CPU."""

    wrong: bool
    """True: its INT8 products are wrong, so its captions may be wrong. False: it may be slow."""
    why: str


def int8_selftest_for(candidates: "Iterable[Runnable]") -> Int8SelfTest | None:
    """Run the INT8 self-test of onnxruntime if a candidate has weights of full range; return None otherwise or without onnxruntime."""
    if not any(candidate.target.full_range for candidate in candidates):
        return None
    try:
        from runtimes.engines.ort.int8_selftest import run_int8_selftest  # a global import would slow down every start

        return run_int8_selftest()
    except ImportError:  # opening the artifact reports it
        return None


def check_cpu(candidate: "Runnable", host: Host, selftest: Int8SelfTest | None) -> CpuProblem | None:
    """Return why an artifact, or the artifact of a recipe, is wrong or slow on this CPU, or None.

    Args:
        candidate: Manifest or recipe.
        host: This machine.
        selftest: Result of `int8_selftest_for`.
    """
    suits = candidate.target.suits(host.cpu_features)
    tuned = f"is tuned for CPUs with {' or '.join(candidate.target.cpu_features)}, which this one lacks"
    if candidate.target.full_range and selftest is not None and not selftest.right:
        saturates = f"integer products saturate here ({selftest.actual:,} where {selftest.expected:,} is right)"
        cause = f"{tuned}; {saturates}" if not suits else f"has weights of full range, and {saturates}"
        return CpuProblem(wrong=True, why=f"{cause}: its captions may be wrong here")
    if suits:
        return None
    effect = "its products are right here, but may be slow" if selftest and selftest.right else "it may be wrong or slow here"
    return CpuProblem(wrong=False, why=f"{tuned}; {effect}")


def drop_incorrect(candidates: Mapping[str, R], host: Host, selftest: Int8SelfTest | None) -> dict[str, R]:
    """Return the candidates without those whose products are wrong on this CPU, regardless of its flags."""
    problems = {name: check_cpu(candidate, host, selftest) for name, candidate in candidates.items()}
    return {name: candidate for name, candidate in candidates.items() if (problem := problems[name]) is None or not problem.wrong}
