"""One product with constant weights as an ONNX model: sizes go in, the model's bytes come out. Neither `onnx` nor a file is needed.

The weights are an initializer, as in an artifact: ONNX Runtime lays out constant weights for the processor when it loads a model, and those
that come as an input are laid out anew at every run. The few fields are written by hand in protobuf's wire format (a key is
field * 8 + kind; kind 0 is a number, kind 2 bytes with their length), numbered as in ONNX's schema.

Axes: M rows, K inputs, N outputs.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IR_VERSION, OPSET = 8, 13

ELEMENT_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6}


@dataclass(frozen=True)
class Product:
    """An operator that multiplies a[M,K] by weights [K,N]."""

    operator: str
    inputs: str
    """Type of a."""
    outputs: str


FLOATS = Product("MatMul", "float32", "float32")
INTEGERS = Product("MatMulInteger", "uint8", "int32")


def matmul_model(product: Product, rows: int, weights: npt.NDArray[np.float32] | npt.NDArray[np.int8]) -> bytes:
    """Return a model that takes a[M,K] and gives y[M,N] = a @ weights[K,N]."""
    inputs, outputs = weights.shape
    node = _text(1, "a") + _text(1, "w") + _text(2, "y") + _text(4, product.operator)
    tensor = _number(1, inputs) + _number(1, outputs) + _number(2, ELEMENT_TYPES[weights.dtype.name]) + _text(8, "w")
    tensor += _bytes(9, weights.tobytes())
    graph = _bytes(1, node) + _text(2, "product") + _bytes(5, tensor)
    graph += _bytes(11, _value("a", product.inputs, (rows, inputs))) + _bytes(12, _value("y", product.outputs, (rows, outputs)))
    return _number(1, IR_VERSION) + _bytes(7, graph) + _bytes(8, _number(2, OPSET))


def _value(name: str, kind: str, shape: tuple[int, int]) -> bytes:
    sizes = b"".join(_bytes(1, _number(1, size)) for size in shape)
    return _text(1, name) + _bytes(2, _bytes(1, _number(1, ELEMENT_TYPES[kind]) + _bytes(2, sizes)))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _text(field: int, text: str) -> bytes:
    return _bytes(field, text.encode())


def _bytes(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Seven bits a byte, lowest first; the top bit says that more follow."""
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])
