"""Measure this machine's limits in this fresh process (a worker of `runtimes.workers`).

Bandwidth: numpy sums integers, one thread per part; memory limits this on every processor. Throughput: ONNX Runtime computes the largest
matrix product of BLIP-base's encoder, with the kernels that it also uses for captions.
"""

import importlib.util
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from runtimes.engines.ort.matmul_model import FP32_MATMUL, INT8_MATMUL, Product, matmul_model
from runtimes.workers.child import Send, serve
from toolkit.bench.roofline.machine_limits import LimitsRequest
from toolkit.records.record import Limits

BUFFER_BYTES = 256 << 20
"""Several times the cache size of common machines."""
ROWS, INPUTS, OUTPUTS = 577, 768, 3072
"""The first product of the MLP at 384 px."""
SECONDS = 0.4
"""Measuring time for each of the three limits, without preparation."""


def measure(request: LimitsRequest, send: Send) -> Limits:
    """Measure the bandwidth and the throughput in FP32 and in INT8."""
    threads, products = request.threads, ROWS * INPUTS * OUTPUTS
    random = np.random.default_rng(0)
    floats = random.standard_normal((ROWS, INPUTS), np.float32), random.standard_normal((INPUTS, OUTPUTS), np.float32)
    bytes_per_s = bandwidth(threads)
    if importlib.util.find_spec("onnxruntime") is None:
        float_s = best_seconds(lambda: floats[0] @ floats[1])
        return Limits(threads=threads, bytes_per_s=bytes_per_s, float_macs_per_s=products / float_s, int8_macs_per_s=None, library="numpy")
    # 7-bit weights, as in portable recipes. With VNNI, 8-bit weights take the same time.
    integers = random.integers(0, 256, (ROWS, INPUTS), np.uint8), random.integers(-64, 64, (INPUTS, OUTPUTS), np.int8)
    return Limits(
        threads=threads,
        bytes_per_s=bytes_per_s,
        float_macs_per_s=products / best_seconds(ort_product(FP32_MATMUL, *floats, threads)),
        int8_macs_per_s=products / best_seconds(ort_product(INT8_MATMUL, *integers, threads)),
        library="onnxruntime",
    )


def bandwidth(threads: int) -> float:
    """Return bytes per second of reading a buffer with `threads` threads."""
    buffer = np.ones(BUFFER_BYTES // 8, np.int64)
    parts = np.array_split(buffer, threads)
    with ThreadPoolExecutor(threads) as pool:  # numpy releases the GIL while it sums
        return buffer.nbytes / best_seconds(lambda: list(pool.map(np.sum, parts)))


def ort_product(product: Product, rows: Any, weights: Any, threads: int) -> Callable[[], object]:  # noqa: ANN401 - arrays of either kind
    """Return a function that computes the product once with ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(matmul_model(product, len(rows), weights), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"a": rows})


def best_seconds(work: Callable[[], object]) -> float:
    """Run `work` at least three times and at least for `SECONDS`; return the shortest time."""
    durations: list[float] = []
    while len(durations) < 3 or sum(durations) < SECONDS:
        started = time.perf_counter()
        work()
        durations.append(time.perf_counter() - started)
    return min(durations)


if __name__ == "__main__":
    serve(LimitsRequest, measure)
