"""ONNX Runtime writes no identifier of the device, and sends no events."""

import os
import subprocess
import sys

import pytest


@pytest.mark.slow  # imports onnxruntime
def test_the_engine_leaves_no_identifier(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name not in ("ORT_DISABLE_TELEMETRY", "CI")}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", "import runtimes, onnxruntime"], check=True, env=environment)
    assert list(tmp_path.rglob("*deviceid*")) == []
