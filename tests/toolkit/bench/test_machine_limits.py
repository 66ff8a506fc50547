"""Machine limits: the hand-written graphs, plausible measurements, and the minimum times that follow from them."""

import os
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest

from runtimes.engines.ort.matmul_model import FP32_MATMUL, INT8_MATMUL, matmul_model
from toolkit.bench.roofline import machine_limits_worker
from toolkit.bench.roofline.machine_limits import measure_limits
from toolkit.bench.roofline.machine_limits_worker import largest_cache_bytes
from toolkit.records.record import Arithmetic, MachineLimits
from toolkit.stats.roofline import encode_limit_s, token_limit_s

LIMITS = MachineLimits(threads=2, bytes_per_s=20e9, float_macs_per_s=50e9, int8_macs_per_s=200e9, library="onnxruntime")
WORK = Arithmetic(
    encode_float_macs=5_000_000_000, encode_int8_macs=40_000_000_000, token_weight_bytes=90_000_000, token_cross_bytes=30_000_000
)


def test_minimum_times_follow_from_limits_and_work():
    assert encode_limit_s(LIMITS, WORK) == pytest.approx(5 / 50 + 40 / 200)
    assert token_limit_s(LIMITS, WORK) == pytest.approx(0.12 / 20)

    assert token_limit_s(LIMITS, WORK, 3) == pytest.approx(0.06 / 20), "three images read the weights once"


def test_without_an_int8_rate_only_float_work_has_a_minimum_time():
    numpy_only = MachineLimits(threads=1, bytes_per_s=20e9, float_macs_per_s=50e9, int8_macs_per_s=None, library="numpy")
    floats = Arithmetic(encode_float_macs=5_000_000_000, encode_int8_macs=0, token_weight_bytes=1, token_cross_bytes=0)
    assert encode_limit_s(numpy_only, WORK) is None
    assert encode_limit_s(numpy_only, floats) == pytest.approx(0.1)


@pytest.mark.parametrize("product", [FP32_MATMUL, INT8_MATMUL], ids=lambda product: product.operator)
def test_a_hand_written_graph_is_valid_onnx_and_multiplies(product):
    random = np.random.default_rng(5)
    rows = random.integers(0, 9, (5, 200)).astype(product.inputs)
    weights = random.integers(-9, 9, (200, 300)).astype(np.float32 if product is FP32_MATMUL else np.int8)
    model = matmul_model(product, 5, weights)
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    (out,) = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"a": rows})
    assert out.dtype.name == product.outputs
    assert np.array_equal(out, rows.astype(np.int64) @ weights.astype(np.int64))


@pytest.mark.slow
def test_this_machine_has_limits(caplog):
    limits = measure_limits(1)
    assert (limits.threads, limits.library) == (1, "onnxruntime")
    assert min(limits.bytes_per_s, limits.float_macs_per_s, limits.int8_macs_per_s) > 1e8
    assert caplog.records == []


def test_the_largest_cache(tmp_path):
    assert largest_cache_bytes(tmp_path) == 0
    for index, size in enumerate(("48K", "2048K", "266240K", "?")):
        folder = tmp_path / f"sys/devices/system/cpu/cpu0/cache/index{index}"
        folder.mkdir(parents=True)
        (folder / "size").write_text(f"{size}\n")
    assert largest_cache_bytes(tmp_path) == 260 << 20


def test_a_buffer_that_caches_could_contain_is_a_problem(monkeypatch):
    monkeypatch.setattr(machine_limits_worker, "MIN_BUFFER_BYTES", 1 << 20)
    monkeypatch.setattr(machine_limits_worker, "MEMORY_SHARE", 0.0)
    monkeypatch.setattr(machine_limits_worker, "SECONDS", 0.0)
    monkeypatch.setattr(machine_limits_worker, "CACHES_PER_BUFFER", 1 << 20)
    rate, problem = machine_limits_worker.bandwidth(1)
    assert rate > 1e8
    assert (problem is None) == (largest_cache_bytes() == 0)


SITE = """
import sys
sys.modules["onnxruntime"] = None
"""
ASK = """
import logging
logging.basicConfig(format="%(message)s")
from toolkit.bench.roofline.machine_limits import measure_limits
limits = measure_limits(1)
print(limits.library, limits.float_macs_per_s > 1e8, limits.int8_macs_per_s)
"""


@pytest.mark.slow
def test_without_onnxruntime_only_floats_are_measured(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(SITE)
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    ran = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": path})
    assert ran.stdout == "numpy True None\n"
    assert ran.stderr == "no INT8 limit: onnxruntime is not installed; pip install 'blip-toolkit[ort]'\n"


def test_a_failed_measurement_is_a_warning(tmp_path, monkeypatch, caplog):
    (tmp_path / "sitecustomize.py").write_text("import os\nos._exit(3)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert measure_limits(1) is None
    assert [record.getMessage() for record in caplog.records] == ["no hardware limits: its process ended: exit code 3"]
