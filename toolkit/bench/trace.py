"""What a runtime did in a component, as its profiler saw it: the common form of `ort_trace` and `torch_trace`."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Protocol

from runtimes.captioner import Captioner

COMPONENT = {"encode": "encoder", "first_token": "decoder", "token": "decoder"}
"""Phase that the clock of a caption tells → the component that runs once in it."""


@dataclass(frozen=True)
class Trace:
    """Seconds by component ("encoder", "decoder")."""

    runs: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Of each run of the runtime's engine, in order."""
    operators: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """Of each operator, all runs together."""


class Tracer(Protocol):
    """A runtime's profiler. Made before the artifact is loaded."""

    def start(self, captioner: Captioner, warmed_up: list[str]) -> None:
        """Begin: what follows counts. Told of the phases that ran before on this captioner."""
        ...

    def read(self) -> Trace:
        """End, when nothing refers to the captioner any more."""
        ...
