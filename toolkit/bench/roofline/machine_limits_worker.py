"""Measure this machine's limits in this fresh process (a worker of `runtimes.workers`).

Bandwidth: numpy sums integers, one thread per part; memory limits this on every processor. The buffer is larger than the last-level cache,
since a sum would otherwise read the cache, and it is measured twice. Throughput: ONNX Runtime computes the largest matrix product of
BLIP-base's encoder, with the kernels that it also uses for captions.
"""

import importlib.util
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from runtimes.engines.ort.matmul_model import FP32_MATMUL, INT8_MATMUL, Product, matmul_model
from runtimes.host.memory import available_bytes
from runtimes.workers.child import Send, serve
from toolkit.bench.roofline.machine_limits import LimitsRequest
from toolkit.records.record import MachineLimits

MIN_BUFFER_BYTES = 256 << 20
"""Size of the buffer where no cache is larger than a quarter of it."""
CACHES_PER_BUFFER = 4
"""Size of the buffer in last-level caches: at most a quarter of a sum can be read from the cache."""
MEMORY_SHARE = 0.25
"""Largest part of the available memory that the buffer may have."""
CACHES = "sys/devices/system/cpu/cpu0/cache/index*/size"
"""Files with the sizes of a processor's caches, such as 266240K."""
REPRODUCIBLE = 0.1
"""Largest relative difference of two measurements of the bandwidth."""
ROWS, INPUTS, OUTPUTS = 577, 768, 3072
"""The first product of the MLP at 384 px."""
SECONDS = 0.4
"""Measuring time for each limit, and twice for the bandwidth, without preparation."""


def measure(request: LimitsRequest, send: Send) -> MachineLimits:
    """Measure the bandwidth and the throughput in FP32 and in INT8."""
    threads, products = request.threads, ROWS * INPUTS * OUTPUTS
    random = np.random.default_rng(0)
    floats = random.standard_normal((ROWS, INPUTS), np.float32), random.standard_normal((INPUTS, OUTPUTS), np.float32)
    bytes_per_s, problem = bandwidth(threads)
    if importlib.util.find_spec("onnxruntime") is None:
        float_s = best_seconds(lambda: floats[0] @ floats[1])
        return MachineLimits(
            threads=threads,
            bytes_per_s=bytes_per_s,
            bandwidth_problem=problem,
            float_macs_per_s=products / float_s,
            int8_macs_per_s=None,
            library="numpy",
        )
    # 7-bit weights, as in portable recipes. With VNNI, 8-bit weights take the same time.
    integers = random.integers(0, 256, (ROWS, INPUTS), np.uint8), random.integers(-64, 64, (INPUTS, OUTPUTS), np.int8)
    return MachineLimits(
        threads=threads,
        bytes_per_s=bytes_per_s,
        bandwidth_problem=problem,
        float_macs_per_s=products / best_seconds(ort_product(FP32_MATMUL, *floats, threads)),
        int8_macs_per_s=products / best_seconds(ort_product(INT8_MATMUL, *integers, threads)),
        library="onnxruntime",
    )


def bandwidth(threads: int) -> tuple[float, str | None]:
    """Return bytes per second of reading memory with `threads` threads, and why the figure is unreliable, or None."""
    wanted = max(MIN_BUFFER_BYTES, CACHES_PER_BUFFER * largest_cache_bytes())
    size = min(wanted, max(MIN_BUFFER_BYTES, int(MEMORY_SHARE * (available_bytes() or wanted))))
    buffer = np.ones(size // 8, np.int64)
    parts = np.array_split(buffer, threads)
    with ThreadPoolExecutor(threads) as pool:  # numpy releases the GIL while it sums
        rates = [buffer.nbytes / best_seconds(lambda: list(pool.map(np.sum, parts))) for _ in range(2)]
    difference = max(rates) / min(rates) - 1
    problem: str | None = None
    if size < wanted:
        problem = f"the buffer of {size >> 20} MiB is too small for a cache of {largest_cache_bytes() >> 20} MiB"
    elif difference > REPRODUCIBLE:
        problem = f"two measurements differ by {difference:.0%}"
    return max(rates), problem


def largest_cache_bytes(root: Path = Path("/")) -> int:
    """Return the size of the last-level cache; 0 if unknown."""
    sizes = [0]
    for file in root.glob(CACHES):
        with suppress(OSError, ValueError):
            sizes.append(int(file.read_text().strip().removesuffix("K")) * 1024)
    return max(sizes)


def ort_product(product: Product, rows: Any, weights: Any, threads: int) -> Callable[[], object]:  # noqa: ANN401 - arrays of either kind
    """Return a function that computes the product once with ONNX Runtime.

    Args:
        product: Kind and size of the matrix product.
        rows: The left matrix; its dtype is that of the product.
        weights: The right matrix, which becomes a constant of the graph.
        threads: Threads of the session.
    """
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
