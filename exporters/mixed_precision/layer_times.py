"""Measure the time of one layer in a format, on this machine."""

import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from time import perf_counter

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from exporters.onnx import blockwise, optimum_int8
from exporters.onnx.storage import optimize
from exporters.recipe import Component, Layer
from runtimes.engines.pytorch.int8_layers import Int8Linear, packing_engine, quantize_rows
from runtimes.engines.pytorch.threads import CpuThreads

RUNS = 7
NAME = "layer"


@lru_cache(maxsize=1024)
def layer_seconds(layer_format: Layer, inputs: int, outputs: int, rows: int, *, runtime: str, threads: int) -> float:
    """Return the median time of x f32[rows,inputs] times a weight with a bias, after one run to warm up.

    Args:
        layer_format: The format.
        inputs: K.
        outputs: N.
        rows: Rows of a run.
        runtime: "ort" or "torch".
        threads: CPU threads.
    """
    weight = np.random.default_rng(0).normal(size=(inputs, outputs)).astype(np.float32)
    x = np.random.default_rng(1).normal(size=(1, rows, inputs)).astype(np.float32)
    return (_torch_seconds if runtime == "torch" else _ort_seconds)(layer_format, weight, x, threads)


def _ort_seconds(layer_format: Layer, weight: np.ndarray, x: np.ndarray, threads: int) -> float:
    nodes = [helper.make_node("MatMul", ["x", "weight"], ["product"], NAME), helper.make_node("Add", ["product", "bias"], ["y"], "add")]
    sides = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, None, weight.shape[0]]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
    ]
    constants = [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(np.zeros(weight.shape[1], np.float32), "bias")]
    graph = helper.make_graph(nodes, NAME, sides[:1], sides[1:], constants)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layer.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
        component = Component(layers={NAME: layer_format})
        optimum_int8.quantize(path, component)
        blockwise.quantize(path, component)
        optimize(path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return _median(lambda: session.run(None, {"x": x}))


def _torch_seconds(layer_format: Layer, weight: np.ndarray, x: np.ndarray, threads: int) -> float:
    matrix, rows = torch.from_numpy(weight.T.copy()), torch.from_numpy(x)
    with packing_engine(), CpuThreads(threads), torch.inference_mode():
        if layer_format.quantized:
            linear = Int8Linear(*quantize_rows(matrix), None)
            return _median(lambda: linear(rows))
        return _median(lambda: torch.nn.functional.linear(rows, matrix))


def _median(run: Callable[[], object]) -> float:
    run()
    times = []
    for _ in range(RUNS):
        started = perf_counter()
        run()
        times.append(perf_counter() - started)
    return float(np.median(times))
