"""Rank artifacts to run, or recipes to export, by facts about this machine. Ranking is a pure function."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from runtimes.artifact.manifest import Target
from runtimes.engine_registry import ENGINES
from runtimes.families.signature import SINGLE
from runtimes.host.facts import Host

APPROXIMATE_RANK = 9
"""Rank of approximate artifacts: below every artifact that computes the checkpoint's function."""

ACCELERATED = {"fp32": 0, "fp16": 1, "int8": 2, "int4": 3}
"""Precision → rank on a named execution provider. Providers run standard operators and leave the others to the CPU."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """An artifact or recipe, the device to run it on and the reason for its rank."""

    name: str
    device: str
    why: str


class Runnable(Protocol):
    """A candidate: a manifest or a recipe."""

    @property
    def runtime(self) -> str:
        """Name of the engine."""
        ...

    @property
    def contract(self) -> str:
        """Contract of the graphs, see `runtimes.families.signature`."""
        ...

    @property
    def target(self) -> Target:
        """Hardware that the candidate is made for."""
        ...


def rank_candidates(candidates: Mapping[str, Runnable], host: Host, device: str = "auto") -> list[Choice]:
    """Return the artifacts or recipes that this host can run, best first.

    Order of precisions: FP16 with CUDA, INT8, INT4 (smaller and less exact), FP32, FP16 on a CPU (which computes in FP32). Approximate
    candidates come last, so they are chosen only for lack of others. Within a precision: `EngineSpec.rank`, split graphs before a single
    graph (which has no beams and no scores), artifacts tuned for this CPU before portable ones. Candidates that need a missing CPU feature
    or library are left out.

    Args:
        candidates: Name → manifest or recipe.
        host: This machine.
        device: "auto", "cpu", "cuda" or another execution provider.
    """
    ranked: list[tuple[tuple[int, int, bool, bool, str], Choice]] = []
    for name, candidate in candidates.items():
        target = candidate.target
        if candidate.runtime not in host.libraries or not target.suits(host.cpu_features):
            continue
        if device not in ("auto", "cpu", "cuda"):
            if not ENGINES[candidate.runtime].execution_providers:
                continue
            rank, where, why = ACCELERATED[target.precision], device, f"{target.precision.upper()} on {device}"
        elif host.cuda and device != "cpu" and target.precision == "fp16":
            rank, where, why = 0, "cuda", "FP16 on the GPU"
        elif device == "cuda" and (not host.cuda or target.precision in ("int8", "int4")):
            continue
        elif device == "cuda":
            rank, where, why = 1, "cuda", "FP32 on the GPU, as there is no FP16 artifact"
        elif target.precision == "int8":
            tuned = ", ".join(feature for feature in target.cpu_features if feature in host.cpu_features)
            rank, where, why = 1, "cpu", f"INT8 tuned for this CPU ({tuned})" if tuned else "INT8 that is correct on every CPU"
        elif target.precision == "int4":
            rank, where, why = 2, "cpu", "INT4, as there is no INT8 artifact that this machine can run"
        elif target.precision == "fp32":
            rank, where, why = 3, "cpu", "FP32, as there is no INT8 or INT4 artifact that this machine can run"
        else:
            rank, where, why = 4, "cpu", "FP16 on the CPU, as there is nothing else"
        if target.approximate:
            rank, why = APPROXIMATE_RANK, f"approximate ({target.precision.upper()}), as there is nothing else that this machine can run"
        # The engine decides before the tuning: weights of full range save no time, they are only slightly more exact.
        order = (rank, ENGINES[candidate.runtime].rank, candidate.contract == SINGLE, not target.cpu_features, name)
        ranked.append((order, Choice(name=name, device=where, why=why)))
    return [choice for _, choice in sorted(ranked, key=lambda entry: entry[0])]
