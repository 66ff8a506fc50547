"""Which of several artifacts to run here, or which recipe to export: host facts go in, an order with reasons comes out. A pure function."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from runtimes.artifact.manifest import Target
from runtimes.engine_registry import ENGINES
from runtimes.families.signature import SINGLE
from runtimes.host.facts import Host

APPROXIMATE_RANK = 9
"""Place behind all that compute what the checkpoint does."""


ACCELERATED = {"fp32": 0, "fp16": 1, "int8": 2, "int4": 3}
"""Precision → place on an execution provider that was named: standard operators first, for it leaves others to the CPU."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """An artifact, where to run it and why it stands at its place."""

    name: str
    device: str
    why: str


class Runnable(Protocol):
    """What is chosen from: a manifest, or a recipe before there is one."""

    @property
    def runtime(self) -> str:
        """Who runs it."""
        ...

    @property
    def contract(self) -> str:
        """What its graphs take and give."""
        ...

    @property
    def target(self) -> Target:
        """Where it is meant to run."""
        ...


def rank_candidates(held: Mapping[str, Runnable], host: Host, device: str = "auto") -> list[Choice]:
    """Order the artifacts, or the recipes, that this host can run, best first.

    FP16 where there is CUDA; else INT8 that fits this CPU, tuned before portable; else INT4, which is smaller and less exact; else FP32;
    FP16 on a CPU after that: it computes in FP32. Approximate ones come last: only a folder that holds nothing else gets one unnamed.
    Between engines `EngineSpec.rank` decides. A single graph stands behind the split ones of its runtime
    and precision: it says the same and can do less, neither beams nor scores. What needs absent CPU features or libraries is left out.

    Args:
        held: Name → manifest or recipe.
        host: This machine.
        device: "auto", "cpu", "cuda" or another execution provider.
    """
    ranked: list[tuple[tuple[int, int, bool, bool, str], Choice]] = []
    for name, one in held.items():
        target = one.target
        if one.runtime not in host.libraries or not target.suits(host.cpu_features):
            continue
        if device not in ("auto", "cpu", "cuda"):
            if not ENGINES[one.runtime].execution_providers:
                continue
            place, where, why = ACCELERATED[target.precision], device, f"{target.precision.upper()} on {device}"
        elif host.cuda and device != "cpu" and target.precision == "fp16":
            place, where, why = 0, "cuda", "FP16 on the GPU"
        elif device == "cuda" and (not host.cuda or target.precision in ("int8", "int4")):
            continue
        elif device == "cuda":
            place, where, why = 1, "cuda", "FP32 on the GPU, as there is no FP16 artifact"
        elif target.precision == "int8":
            tuned = ", ".join(feature for feature in target.cpu_features if feature in host.cpu_features)
            place, where, why = 1, "cpu", f"INT8 tuned for this CPU ({tuned})" if tuned else "INT8 that is right on every CPU"
        elif target.precision == "int4":
            place, where, why = 2, "cpu", "INT4, as there is no INT8 artifact that this machine can run"
        elif target.precision == "fp32":
            place, where, why = 3, "cpu", "FP32, as there is no INT8 or INT4 artifact that this machine can run"
        else:
            place, where, why = 4, "cpu", "FP16 on the CPU, as there is nothing else"
        if target.approximate:
            place, why = APPROXIMATE_RANK, f"approximate ({target.precision.upper()}), as there is nothing else that this machine can run"
        # Among INT8 artifacts the runtime counts for more than the tuning: full-range weights save no time, they are a little more exact.
        order = (place, ENGINES[one.runtime].rank, one.contract == SINGLE, not target.cpu_features, name)
        ranked.append((order, Choice(name=name, device=where, why=why)))
    return [choice for _, choice in sorted(ranked, key=lambda entry: entry[0])]
