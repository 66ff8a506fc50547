"""One product with constant weights as an ONNX model: sizes go in, the model's bytes come out. Neither `onnx` nor a file is needed.

The weights are an initializer, as in an artifact: ONNX Runtime lays out constant weights for the processor when it loads a model, and those
that come as an input are laid out anew at every run.

Axes: M rows, K inputs, N outputs.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from runtimes.engines.ort.model_bytes import ELEMENT_TYPES, bytes_field, model_of, number, text, value_info


@dataclass(frozen=True)
class Product:
    """An operator that multiplies a[M,K] by weights [K,N]."""

    operator: str
    inputs: str
    """Type of a."""
    outputs: str


FP32_MATMUL = Product("MatMul", "float32", "float32")
INT8_MATMUL = Product("MatMulInteger", "uint8", "int32")


def matmul_model(product: Product, rows: int, weights: npt.NDArray[np.float32] | npt.NDArray[np.int8]) -> bytes:
    """Return a model that takes a[M,K] and gives y[M,N] = a @ weights[K,N]."""
    inputs, outputs = weights.shape
    node = text(1, "a") + text(1, "w") + text(2, "y") + text(4, product.operator)
    tensor = number(1, inputs) + number(1, outputs) + number(2, ELEMENT_TYPES[weights.dtype.name]) + text(8, "w")
    tensor += bytes_field(9, weights.tobytes())
    values = bytes_field(11, value_info("a", product.inputs, (rows, inputs))) + bytes_field(
        12, value_info("y", product.outputs, (rows, outputs))
    )
    return model_of(bytes_field(1, node) + text(2, "product") + bytes_field(5, tensor) + values)
