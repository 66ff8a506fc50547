"""The protocol of an engine that runs the graphs of a model. `StepSession` and `SingleGraphSession` work with every engine.

A `Value` is a tensor of the engine, possibly in device memory. Axes: R decoder rows, H heads, P past tokens, Dh width of a head.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from runtimes.decoding.session import EngineInfo, Int64

Value: TypeAlias = Any
Bound: TypeAlias = Any
"""Inputs that an engine has prepared for several runs of one graph."""


@dataclass(frozen=True)
class TensorSpec:
    """Element type and shape of a graph's input or output. None stands for an axis of variable size."""

    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs of a graph by name, in the graph's order."""

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]


class Engine(Protocol):
    """Runs graphs. A graph is named by its role: "encoder", "decoder", or "captioner" for a graph with the whole search."""

    def signature(self, graph: str) -> Signature:
        """Return the inputs and outputs of a graph."""
        ...

    def bind(self, graph: str, feeds: Mapping[str, Value]) -> Bound:
        """Prepare inputs that are the same in several runs of a graph; each run then passes only the other inputs."""
        ...

    def run(self, graph: str, bound: Bound, feeds: Mapping[str, Value], outputs: Sequence[str]) -> dict[str, Value]:
        """Run a graph and return its outputs by name.

        Args:
            graph: Role of the graph.
            bound: Inputs from `bind`.
            feeds: Name → value of the other inputs.
            outputs: Names of the outputs to compute. Their values stay valid until the same graph has run twice more.
        """
        ...

    def to_engine(self, array: NDArray[Any]) -> Value:
        """Convert an array to a tensor of the engine, which may share the array's memory."""
        ...

    def to_numpy(self, value: Value) -> NDArray[Any]:
        """Convert a tensor to an array that shares no memory with the engine."""
        ...

    def take(self, value: Value, indices: Int64) -> Value:
        """Return the entries of a tensor's first axis at `indices` i64[n], in this order."""
        ...

    def crop(self, value: Value, length: int) -> Value:
        """Return the first `length` tokens of a cache tensor [R,H,P,Dh]."""
        ...

    def info(self) -> EngineInfo:
        """See `Session.info`."""
        ...
