"""ONNX Runtime as an `Engine`. Values are OrtValues in the memory of the execution provider.

The inputs of a run are referenced until the run has ended, because ONNX Runtime reads a CPU array's own memory, and an IOBinding of older
versions does not keep the array alive.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from runtimes.decoding.session import DeviceMemoryError, EngineInfo, Int64
from runtimes.engines.engine import Signature, TensorSpec

ELEMENT_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64}
DEVICE_PROVIDERS = {"cuda": "CUDAExecutionProvider"}
"""Device memory → provider for `DeviceGather`."""
TOKEN_AXIS = 2
"""Axis P of a cache tensor [R,H,P,Dh]."""


@dataclass(frozen=True)
class OrtBound:
    """An IOBinding with the values that stay bound to it."""

    binding: Any
    values: Mapping[str, Any]


class OrtEngine:
    """Runs graphs with one InferenceSession each."""

    def __init__(self, sessions: Mapping[str, Any], *, device: str, memory: str, threads: int, precision: str) -> None:
        """Wrap open sessions.

        Args:
            sessions: Role of a graph → InferenceSession; all have the same provider.
            device: Device name, a key of `PROVIDERS`.
            memory: Device of the values, by OrtValue's name for it: "cpu" or "cuda".
            threads: CPU threads, for `info`.
            precision: Precision of the artifact, for `info`.
        """
        self._sessions, self._device, self._memory, self._threads, self._precision = sessions, device, memory, threads, precision
        if memory != "cpu":
            from runtimes.engines.ort.device_gather import DeviceGather  # imported here because it is rarely needed and slows every start

            self._gather = DeviceGather((DEVICE_PROVIDERS[memory], "CPUExecutionProvider"), memory)

    def signature(self, graph: str) -> Signature:
        """See `Engine.signature`."""
        session = self._sessions[graph]
        return Signature({v.name: _spec(v) for v in session.get_inputs()}, {v.name: _spec(v) for v in session.get_outputs()})

    def bind(self, graph: str, feeds: Mapping[str, Any]) -> OrtBound:
        """See `Engine.bind`."""
        binding = self._sessions[graph].io_binding()
        for name, value in feeds.items():
            binding.bind_ortvalue_input(name, value)
        return OrtBound(binding, feeds)

    def run(self, graph: str, bound: OrtBound, feeds: Mapping[str, Any], outputs: Sequence[str]) -> dict[str, Any]:
        """See `Engine.run`."""
        for name, value in feeds.items():
            bound.binding.bind_ortvalue_input(name, value)
        for name in outputs:
            bound.binding.bind_output(name, self._memory)
        with _device_memory():
            self._sessions[graph].run_with_iobinding(bound.binding)
        return dict(zip(outputs, bound.binding.get_outputs(), strict=True))

    def to_engine(self, array: NDArray[Any]) -> Any:  # noqa: ANN401 - onnxruntime is untyped
        """See `Engine.to_engine`."""
        return onnxruntime.OrtValue.ortvalue_from_numpy(np.asarray(array, order="C"), self._memory, 0)

    def to_numpy(self, value: Any) -> NDArray[Any]:  # noqa: ANN401
        """See `Engine.to_numpy`."""
        array: NDArray[Any] = value.numpy()
        return array

    def take(self, value: Any, indices: Int64) -> Any:  # noqa: ANN401
        """See `Engine.take`."""
        if self._memory == "cpu":
            return self.to_engine(value.numpy()[indices])
        return self._gather(value, indices, 0)

    def crop(self, value: Any, length: int) -> Any:  # noqa: ANN401
        """See `Engine.crop`."""
        if self._memory == "cpu":
            return self.to_engine(value.numpy()[:, :, :length])
        return self._gather(value, np.arange(length), TOKEN_AXIS)

    def info(self) -> EngineInfo:
        """See `Engine.info`."""
        return EngineInfo(
            runtime="ort",
            versions={"onnxruntime": onnxruntime.__version__, "numpy": np.__version__},
            device=self._device,
            providers=tuple(next(iter(self._sessions.values())).get_providers()),
            threads=self._threads,
            precision=self._precision,
        )


def _spec(value: Any) -> TensorSpec:  # noqa: ANN401
    return TensorSpec(np.dtype(ELEMENT_TYPES[value.type]), tuple(size if isinstance(size, int) else None for size in value.shape))


@contextlib.contextmanager
def _device_memory() -> Iterator[None]:
    """Turn onnxruntime's out-of-memory error into DeviceMemoryError."""
    try:
        yield
    except Exception as error:
        if "allocate memory" in str(error):  # the text of BFCArena's message is the only difference from other errors
            raise DeviceMemoryError(str(error).splitlines()[0]) from error
        raise
