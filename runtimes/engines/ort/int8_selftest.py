"""Test whether ONNX Runtime multiplies full-range INT8 weights without saturation on this CPU, with one small product."""

from functools import cache

import numpy as np
import onnxruntime

from runtimes.engines.offer import Int8SelfTest
from runtimes.engines.ort.matmul_model import INT8_MATMUL, matmul_model

ROWS, INPUTS, OUTPUTS = 4, 64, 16
"""Shape of the product. It has several rows, like an encoder's, because the library may use another kernel for a single row."""
LARGEST = 255, 127
"""Largest u8 activation and s8 weight. The sum of two such products is 64,770, above the 16-bit maximum of 32,767."""


@cache
def run_int8_selftest() -> Int8SelfTest:
    """Multiply the largest u8 and s8 values with ONNX Runtime and return the result; takes about 0.5 ms."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    activation, weight = LARGEST
    model = matmul_model(INT8_MATMUL, ROWS, np.full((INPUTS, OUTPUTS), weight, np.int8))
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (sums,) = session.run(None, {"a": np.full((ROWS, INPUTS), activation, np.uint8)})
    expected = activation * weight * INPUTS
    return Int8SelfTest(expected=expected, actual=int(sums.flat[np.abs(sums - expected).argmax()]))
