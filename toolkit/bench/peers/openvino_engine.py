"""OpenVINO as an engine for both layouts of BLIP's graphs.

Each graph has two infer requests per thread, used alternately: the output tensors of one are the inputs of the other without a copy.
"""

import threading
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino import properties
from openvino.properties import hint

from runtimes.decoding.session import EngineInfo, Int64
from runtimes.engines.engine import Signature, TensorSpec
from runtimes.tasks.captioner import Captioner
from toolkit.bench.peers.graph_session import open_graphs

SINGLE_STREAM = {
    hint.performance_mode(): hint.PerformanceMode.LATENCY,
    properties.num_streams(): 1,
}
"""One stream: the benchmark captions one batch at a time."""
STREAMS = {hint.performance_mode(): hint.PerformanceMode.THROUGHPUT}
"""OpenVINO chooses the number of streams."""


def open_fp32(path: Path, threads: int) -> tuple[Captioner, EngineInfo]:
    """Open a prepared folder. Compute in FP32 even if the CPU has faster float types."""
    return open_graphs(path, OpenVinoEngine(path, threads, {hint.inference_precision(): openvino.Type.f32}))


def open_int8(path: Path, threads: int) -> tuple[Captioner, EngineInfo]:
    """Open a prepared folder of NNCF's graphs. OpenVINO chooses the type of the operators that are not INT8."""
    return open_graphs(path, OpenVinoEngine(path, threads, {}))


def open_int8_streams(path: Path, threads: int) -> tuple[Captioner, EngineInfo]:
    """Open a prepared folder of NNCF's graphs for several threads that caption at once."""
    return open_graphs(path, OpenVinoEngine(path, threads, STREAMS))


class OpenVinoEngine:
    """Two compiled graphs on the CPU; see `Engine`."""

    def __init__(self, path: Path, threads: int, settings: dict[Any, Any]) -> None:
        core = openvino.Core()
        options = {**SINGLE_STREAM, properties.inference_num_threads(): threads, **settings}
        self._threads = threads
        self._compiled = {role: core.compile_model(path / f"{role}.xml", "CPU", options) for role in ("encoder", "decoder")}
        self._own = threading.local()

    def signature(self, graph: str) -> Signature:
        """See `Engine.signature`."""
        compiled = self._compiled[graph]
        return Signature({_name(port): _spec(port) for port in compiled.inputs}, {_name(port): _spec(port) for port in compiled.outputs})

    def bind(self, graph: str, feeds: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `Engine.bind`. Requests alternate, so each run sets all tensors again."""
        return feeds

    def run(self, graph: str, bound: Mapping[str, Any], feeds: Mapping[str, Any], outputs: Sequence[str]) -> dict[str, Any]:
        """See `Engine.run`."""
        request = next(self._requests()[graph])
        for name, value in {**bound, **feeds}.items():
            request.set_tensor(name, value)
        request.infer()
        return {name: request.get_tensor(name) for name in outputs}

    def _requests(self) -> dict[str, Any]:
        """Return the infer requests of this thread."""
        if not hasattr(self._own, "requests"):
            self._own.requests = {role: cycle([graph.create_infer_request() for _ in range(2)]) for role, graph in self._compiled.items()}
        requests: dict[str, Any] = self._own.requests
        return requests

    def to_engine(self, array: NDArray[Any]) -> Any:  # noqa: ANN401 - openvino is untyped
        """See `Engine.to_engine`."""
        return openvino.Tensor(np.ascontiguousarray(array))

    def to_numpy(self, value: Any) -> NDArray[Any]:  # noqa: ANN401
        """See `Engine.to_numpy`."""
        return np.array(value.data)  # a copy: the next run of the request overwrites its outputs

    def take(self, value: Any, indices: Int64) -> Any:  # noqa: ANN401
        """See `Engine.take`."""
        return self.to_engine(value.data[indices])

    def crop(self, value: Any, length: int) -> Any:  # noqa: ANN401
        """See `Engine.crop`."""
        return self.to_engine(value.data[:, :, :length])

    def info(self) -> EngineInfo:
        """See `Engine.info`."""
        floats = {role: graph.get_property(hint.inference_precision()).to_string() for role, graph in self._compiled.items()}
        return EngineInfo(
            runtime="openvino",
            versions={"openvino": openvino.__version__.partition("-")[0], "numpy": np.__version__},
            device="cpu",
            providers=tuple(f"CPU {role} {kind}" for role, kind in floats.items()),
            threads=self._threads,
            precision=floats["decoder"],
        )


def _spec(port: Any) -> TensorSpec:  # noqa: ANN401
    shape = tuple(axis.get_length() if axis.is_static else None for axis in port.get_partial_shape())
    return TensorSpec(np.dtype(port.get_element_type().to_dtype()), shape)


def _name(port: Any) -> str:  # noqa: ANN401
    """Return the exported name of a port. Names of folded nodes are paths, and contain a slash."""
    return next(str(name) for name in sorted(port.names) if "/" not in name)
