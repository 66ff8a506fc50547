"""Gather entries of a tensor in device memory, so that beam search does not copy the KV cache of a GPU to the host at every step.

ONNX Runtime has no such function for an OrtValue. Therefore a graph with one Gather runs on the device; only the indices are copied to it.
"""

from collections.abc import Sequence
from typing import Any

import onnxruntime

from runtimes.decoding.session import Int64
from runtimes.engines.ort.model_bytes import bytes_field, model_of, number, text, value_info

INT_ATTRIBUTE = 2
"""Value of AttributeProto.type for an integer."""


class DeviceGather:
    """Gathers entries of OrtValues in device memory."""

    def __init__(self, providers: Sequence[str], memory: str) -> None:
        """Set the execution providers and the device.

        Args:
            providers: Execution providers, first choice first.
            memory: Device of the values, by OrtValue's name for it.
        """
        self._providers, self._memory = list(providers), memory
        self._sessions: dict[tuple[str, int], Any] = {}

    def __call__(self, value: Any, indices: Int64, axis: int) -> Any:  # noqa: ANN401 - onnxruntime is untyped
        """Gather entries of an OrtValue.

        Args:
            value: f32 or f16, of any rank.
            indices: i64[n], the entries to take, in this order.
            axis: The axis to take them from.

        Returns:
            A new OrtValue on the device.
        """
        key = (value.data_type(), axis)
        if key not in self._sessions:
            kind = {"tensor(float)": "float32", "tensor(float16)": "float16"}[key[0]]
            self._sessions[key] = onnxruntime.InferenceSession(gather_model(kind, axis), providers=self._providers)
        session = self._sessions[key]
        binding = session.io_binding()
        device_indices = onnxruntime.OrtValue.ortvalue_from_numpy(indices, self._memory, 0)
        binding.bind_ortvalue_input("value", value)
        binding.bind_ortvalue_input("indices", device_indices)
        binding.bind_output("taken", self._memory)
        session.run_with_iobinding(binding)
        return binding.get_outputs()[0]


def gather_model(kind: str, axis: int) -> bytes:
    """Return the bytes of a model that gathers `indices` i64[n] from an axis of `value`, of any rank and element type `kind`."""
    attribute = text(1, "axis") + number(3, axis) + number(20, INT_ATTRIBUTE)
    node = text(1, "value") + text(1, "indices") + text(2, "taken") + text(4, "Gather") + bytes_field(5, attribute)
    graph = bytes_field(1, node) + text(2, "gather")
    for name, element in (("value", kind), ("indices", "int64")):
        graph += bytes_field(11, value_info(name, element, None))
    return model_of(graph + bytes_field(12, value_info("taken", kind, None)))
