"""Whether ONNX Runtime multiplies full-range INT8 weights without saturation on this CPU, found out by one small product."""

from functools import cache

import numpy as np
import onnxruntime

from runtimes.engines.offer import Int8SelfTest
from runtimes.engines.ort.matmul_model import INT8_MATMUL, matmul_model

ROWS, INPUTS, OUTPUTS = 4, 64, 16
"""Several rows, as an encoder has: one row may take another path through the library."""
LARGEST = 255, 127
"""Of u8 activations and s8 weights: two such products are 64,770, twice what 16 bits hold."""


@cache
def run_int8_selftest() -> Int8SelfTest:
    """Multiply the largest values of both types with ONNX Runtime. Takes about half a millisecond."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    activation, weight = LARGEST
    model = matmul_model(INT8_MATMUL, ROWS, np.full((INPUTS, OUTPUTS), weight, np.int8))
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (sums,) = session.run(None, {"a": np.full((ROWS, INPUTS), activation, np.uint8)})
    expected = activation * weight * INPUTS
    return Int8SelfTest(expected=expected, found=int(sums.flat[np.abs(sums - expected).argmax()]))
