"""What runs the graphs of a model: the protocol below a session. A new engine implements it and gets the sessions of this package.

Values are the engine's own tensors and may live on a device. Axes: R decoder rows, H heads, P past tokens, Dh width of a head.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from runtimes.decoding.session import EngineInfo, Int64

Value: TypeAlias = Any
Bound: TypeAlias = Any
"""Inputs that an engine prepared for several runs of one graph."""


@dataclass(frozen=True)
class TensorSpec:
    """Element type and shape of a graph's input or output; None for an axis of any size."""

    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs of a graph by name, in the graph's order."""

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]


class Engine(Protocol):
    """Runs graphs by role: "encoder", "decoder", or "captioner" for the whole loop."""

    def signature(self, graph: str) -> Signature:
        """Return what a graph takes and gives."""
        ...

    def bind(self, graph: str, feeds: Mapping[str, Value]) -> Bound:
        """Prepare inputs that stay the same for several runs of a graph, so that each run passes only what changes."""
        ...

    def run(self, graph: str, bound: Bound, feeds: Mapping[str, Value], outputs: Sequence[str]) -> dict[str, Value]:
        """Run a graph on bound inputs and feeds. Outputs stay valid until the same graph has run twice more."""
        ...

    def to_engine(self, array: NDArray[Any]) -> Value:
        """Return the engine's tensor of an array; it may share the array's memory."""
        ...

    def to_numpy(self, value: Value) -> NDArray[Any]:
        """Return a tensor as an array of its own memory."""
        ...

    def take(self, value: Value, indices: Int64) -> Value:
        """Return the entries i64[n] of a tensor's first axis, in this order."""
        ...

    def crop(self, value: Value, length: int) -> Value:
        """Return the first `length` tokens of a cache tensor [R,H,P,Dh]."""
        ...

    def info(self) -> EngineInfo:
        """See `Session.info`."""
        ...
