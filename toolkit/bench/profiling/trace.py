"""What a runtime did while it captioned, as its profiler saw it: the common form of `ort_trace` and `torch_trace`."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from runtimes.captioner import Captioner

COMPONENT = {"encode": "encoder", "first_token": "decoder", "token": "decoder"}
"""Phase that the clock of a caption tells → the component that runs once in it."""


@dataclass(frozen=True)
class Trace:
    """What was seen after the warm-up."""

    operators: dict[str, defaultdict[str, float]] = field(
        default_factory=lambda: {component: defaultdict(float) for component in ("encoder", "decoder")}
    )
    """Component → operator → seconds, all runs together."""
    runs: list[float] = field(default_factory=list)
    """Seconds of each run in its operators, in order; empty where `Tracer.timing_runs` tells of runs."""


class Tracer(Protocol):
    """A runtime's profiler."""

    def timing_runs(self) -> AbstractContextManager[list[float]]:
        """Note the seconds of every call of the runtime's engine while the body runs; stays empty where there is no such call."""
        ...

    def open(self) -> None:
        """Profile the artifact that is loaded next."""
        ...

    def start(self, captioner: Captioner, warmed_up: list[str]) -> None:
        """Begin: what follows counts. Told of the phases that ran before on this captioner."""
        ...

    def read(self) -> Trace:
        """End, when nothing refers to the captioner any more."""
        ...


def outside_runs(phases: list[str], seconds: list[float], runs: Iterator[float]) -> dict[str, float]:
    """Return what each phase took outside the engine's runs, all of the phase together."""
    outside: defaultdict[str, float] = defaultdict(float)
    for phase, taken in zip(phases, seconds, strict=True):
        if phase in COMPONENT:
            outside[phase] += taken - next(runs)
    return outside
