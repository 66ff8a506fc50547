"""OpenVINO as an engine for both layouts of BLIP's graphs.

The decoder has two requests that take turns, so that what one has written is the other's input without a copy.
"""

from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from openvino import properties
from openvino.properties import hint

from runtimes.captioner import Captioner
from runtimes.decoding.session import Description
from toolkit.bench.peers.graph_session import open_graphs

SINGLE_STREAM = {
    hint.performance_mode(): hint.PerformanceMode.LATENCY,
    properties.num_streams(): 1,
}
"""One picture at a time, like every other case."""


def open_fp32(path: Path, threads: int) -> tuple[Captioner, Description]:
    """Open a prepared folder and compute in FP32 even where the CPU has faster float types."""
    return open_graphs(path, OpenVinoEngine(path, threads, {hint.inference_precision(): openvino.Type.f32}))


def open_int8(path: Path, threads: int) -> tuple[Captioner, Description]:
    """Open a prepared folder of NNCF's graphs; what is not INT8 runs in the type that OpenVINO chooses for this CPU."""
    return open_graphs(path, OpenVinoEngine(path, threads, {}))


class OpenVinoEngine:
    """Two compiled graphs on the CPU; see `Engine`."""

    def __init__(self, path: Path, threads: int, settings: dict[Any, Any]) -> None:
        core = openvino.Core()
        chosen = {**SINGLE_STREAM, properties.inference_num_threads(): threads, **settings}
        self._threads = threads
        self._compiled = {role: core.compile_model(path / f"{role}.xml", "CPU", chosen) for role in ("encoder", "decoder")}
        self._requests = {role: cycle([graph.create_infer_request() for _ in range(2)]) for role, graph in self._compiled.items()}

    def inputs(self, role: str) -> list[str]:
        """See `Engine.inputs`."""
        return [_name(port) for port in self._compiled[role].inputs]

    def outputs(self, role: str) -> list[str]:
        """See `Engine.outputs`."""
        return [_name(port) for port in self._compiled[role].outputs]

    def run(self, role: str, feeds: dict[str, Any]) -> dict[str, Any]:
        """See `Engine.run`."""
        request = next(self._requests[role])
        for name, value in feeds.items():
            request.set_tensor(name, value)
        request.infer()
        return {name: request.get_tensor(name) for name in self.outputs(role)}

    def value(self, array: Any) -> Any:  # noqa: ANN401
        """See `Engine.value`."""
        return openvino.Tensor(np.ascontiguousarray(array))

    def array(self, value: Any) -> Any:  # noqa: ANN401
        """See `Engine.array`."""
        return np.array(value.data)  # a copy: the request writes over its outputs

    def describe(self) -> Description:
        """See `Engine.describe`."""
        floats = {role: graph.get_property(hint.inference_precision()).to_string() for role, graph in self._compiled.items()}
        return Description(
            runtime="openvino",
            versions={"openvino": openvino.__version__.partition("-")[0], "numpy": np.__version__},
            device="cpu",
            providers=tuple(f"CPU {role} {kind}" for role, kind in floats.items()),
            threads=self._threads,
            precision=floats["decoder"],
        )


def _name(port: Any) -> str:  # noqa: ANN401
    """Of a port's names, the one that the graph was exported with; folded nodes leave theirs, which are paths, on the port too."""
    return next(str(name) for name in sorted(port.names) if "/" not in name)
