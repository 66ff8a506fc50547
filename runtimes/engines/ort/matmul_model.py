"""Build an ONNX model of one matrix product with constant weights, as bytes and without the `onnx` package.

The weights are an initializer, as in an artifact. ONNX Runtime repacks constant weights for the CPU once, when it loads a model; it
would repack weights that are an input at every run.

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
    """Element type of a."""
    outputs: str
    """Element type of the product."""


FP32_MATMUL = Product("MatMul", "float32", "float32")
INT8_MATMUL = Product("MatMulInteger", "uint8", "int32")


def matmul_model(product: Product, rows: int, weights: npt.NDArray[np.float32] | npt.NDArray[np.int8]) -> bytes:
    """Return the bytes of a model with the input a[M,K] and the output y[M,N] = a @ weights.

    Args:
        product: The operator.
        rows: M.
        weights: f32[K,N] for `FP32_MATMUL`, i8[K,N] for `INT8_MATMUL`.
    """
    inputs, outputs = weights.shape
    node = text(1, "a") + text(1, "w") + text(2, "y") + text(4, product.operator)
    tensor = number(1, inputs) + number(1, outputs) + number(2, ELEMENT_TYPES[weights.dtype.name]) + text(8, "w")
    tensor += bytes_field(9, weights.tobytes())
    values = bytes_field(11, value_info("a", product.inputs, (rows, inputs)))
    values += bytes_field(12, value_info("y", product.outputs, (rows, outputs)))
    return model_of(bytes_field(1, node) + text(2, "product") + bytes_field(5, tensor) + values)
