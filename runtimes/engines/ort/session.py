"""ONNX Runtime session: the encoder and decoder graphs of contract `split/1` behind the numeric functions of captioning.

Tensors stay OrtValues between runs, so cross-attention K/V is neither copied nor seen by Python. Axes as in
`runtimes.decoding.session`; H heads, P past tokens, N vision tokens, Dh width of a head.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from runtimes.artifact.verified_files import Payload
from runtimes.decoding.session import Description, Float32, Int64
from runtimes.engines.ort.open_graph import describe, device_memory, open_graph
from runtimes.errors import ArtifactCorruptError

logger = logging.getLogger(__name__)

ELEMENT_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


@dataclass
class OrtState:
    """Cross K/V [B,H,N,Dh] and cache [R,H,P,Dh] per decoder layer: k0, v0, k1, v1, ..."""

    cross: list[Any]
    past: list[Any]
    binding: Any
    """Of the decoder; the cross K/V are bound to it once, as they outlive every step."""


class OrtSession:
    """BLIP's graphs on an execution provider."""

    profiles: Path | None = None
    """See `open_graph`; for measuring only."""

    def __init__(self, payload: Payload, *, device: str, threads: int) -> None:
        self._device, self._threads, self._precision = device, threads, payload.artifact.manifest.target.precision
        self._encoder = open_graph(payload, "encoder", device, threads, self.profiles)
        self._decoder = open_graph(payload, "decoder", device, threads, self.profiles)
        self._cross_names = [value.name for value in self._encoder.get_outputs()]
        self._past_names = [value.name for value in self._decoder.get_inputs() if value.name.startswith("past_")]
        self._present_names = [name.replace("past_", "present_", 1) for name in self._past_names]
        inputs = {value.name: value for value in self._decoder.get_inputs()}
        if not self._past_names or set(inputs) != {"token_ids", "positions", *self._cross_names, *self._past_names}:
            wanted = ", ".join(sorted(inputs))
            raise ArtifactCorruptError(payload.artifact.path_of("decoder"), f"is not this encoder's decoder: it takes {wanted}")
        past = inputs[self._past_names[0]]
        self._empty_shape, self._dtype = (past.shape[1], 0, past.shape[3]), ELEMENT_TYPES[past.type]

    @classmethod
    def open(cls, payload: Payload, device: str, threads: int) -> "OrtSession":
        """Open an artifact's graphs."""
        return cls(payload, device=device, threads=threads)

    def encode(self, pixels: Float32) -> OrtState:
        """See `Session.encode`."""
        binding = self._encoder.io_binding()
        binding.bind_ortvalue_input("pixels", self._value(pixels))
        cross = self._run(self._encoder, binding, self._cross_names)
        empty = self._value(np.zeros((len(pixels), *self._empty_shape), dtype=self._dtype))
        return self._bound(cross, [empty] * len(self._past_names))

    def step(self, token_ids: Int64, state: OrtState, positions: Int64) -> tuple[Float32, OrtState]:
        """See `Session.step`."""
        binding = state.binding
        binding.bind_ortvalue_input("token_ids", self._value(token_ids))
        binding.bind_ortvalue_input("positions", self._value(positions))
        for name, value in zip(self._past_names, state.past, strict=True):
            binding.bind_ortvalue_input(name, value)
        logits, *present = self._run(self._decoder, binding, ["logits", *self._present_names])
        return logits.numpy(), OrtState(state.cross, present, binding)

    def select(self, state: OrtState, rows: Int64, images: Int64) -> OrtState:
        """See `Session.select`."""
        past = [self._take(value, rows) for value in state.past]
        if _all(images, state.cross[0]):
            return OrtState(state.cross, past, state.binding)
        return self._bound([self._take(value, images) for value in state.cross], past)

    def describe(self) -> Description:
        """See `Session.describe`."""
        return describe(self._decoder, self._precision, self._device, self._threads)

    def _bound(self, cross: list[Any], past: list[Any]) -> OrtState:
        binding = self._decoder.io_binding()
        for name, value in zip(self._cross_names, cross, strict=True):
            binding.bind_ortvalue_input(name, value)
        return OrtState(cross, past, binding)

    def _run(self, session: Any, binding: Any, names: list[str]) -> list[Any]:  # noqa: ANN401
        for name in names:
            binding.bind_output(name, "cpu" if name == "logits" else self._device)
        with device_memory():
            session.run_with_iobinding(binding)
        return list(binding.get_outputs())

    def _value(self, array: Any) -> Any:  # noqa: ANN401
        return onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), self._device, 0)

    def _take(self, value: Any, indices: Int64) -> Any:  # noqa: ANN401
        return value if _all(indices, value) else self._value(value.numpy()[indices])


def _all(indices: Int64, value: Any) -> bool:  # noqa: ANN401
    """Whether i64[n] names every entry of a value's first axis in order."""
    return np.array_equal(indices, np.arange(value.shape()[0]))
