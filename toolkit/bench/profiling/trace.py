"""The common interface of the profilers in `ort_trace` and `torch_trace`."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from runtimes.tasks.captioner import Captioner

COMPONENT = {"encode": "encoder", "first_token": "decoder", "token": "decoder"}
"""Phase of a caption's clock → the component that runs once in this phase."""


@dataclass(frozen=True)
class Trace:
    """A profiler's measurements after the warm-up."""

    operators: dict[str, defaultdict[str, float]] = field(
        default_factory=lambda: {component: defaultdict(float) for component in ("encoder", "decoder")}
    )
    """Component → operator → seconds, summed over all runs."""
    runs: list[float] = field(default_factory=list)
    """Seconds that each run spends in operators, in order; empty if `Tracer.timing_runs` times the runs."""


class Tracer(Protocol):
    """A runtime's profiler."""

    def timing_runs(self) -> AbstractContextManager[list[float]]:
        """Return a context manager whose list receives the seconds of each engine run; it stays empty for engines without such a call."""
        ...

    def open(self) -> None:
        """Turn the profiler on for the artifact that is loaded next."""
        ...

    def start(self, captioner: Captioner, warmed_up: list[str]) -> None:
        """Start measuring.

        Args:
            captioner: The loaded artifact.
            warmed_up: Phases that already ran on this captioner, which are not counted.
        """
        ...

    def read(self) -> Trace:
        """Stop and return the trace. Call it when the captioner has no references left."""
        ...


def outside_runs(phases: list[str], seconds: list[float], runs: Iterator[float]) -> dict[str, float]:
    """Return phase → seconds outside the engine's runs, summed over all images."""
    outside: defaultdict[str, float] = defaultdict(float)
    for phase, phase_s in zip(phases, seconds, strict=True):
        if phase in COMPONENT:
            outside[phase] += phase_s - next(runs)
    return outside
