"""The script of `make check-gpu`, as far as it runs on a CPU."""

import json

import pytest

from runtimes import load
from tests import gpu
from tests.gpu import EXPECTED, gate, observed, speed, travelling_bytes


@pytest.fixture(scope="module")
def expected(tiny_artifacts):
    with load(tiny_artifacts["onnx-fp32"], threads=1) as captioner:
        return observed(captioner)


def test_the_gate_passes_the_same_artifact_and_fails_another(tiny_artifacts, expected):
    with load(tiny_artifacts["pytorch-fp32"], device="cpu", threads=1) as captioner:
        same, drift = gate(captioner, json.loads(json.dumps(expected)))
        assert (same.passed, drift.passed, same.result) == (True, True, "100%")
        changed = {**expected, "ids": [ids[::-1] for ids in expected["ids"]], "scores": [score + 1 for score in expected["scores"]]}
        assert [finding.passed for finding in gate(captioner, changed)] == [False, False]


def test_images_per_second_of_each_batch_size(tiny_artifacts):
    with load(tiny_artifacts["onnx-fp32"], threads=1) as captioner:
        findings = list(speed(captioner))
    assert [finding.name for finding in findings] == ["images/s, batch 1", "images/s, batch 8", "images/s, batch 21"]
    assert all(float(finding.result) > 0 for finding in findings)


def test_a_run_without_a_gpu_fails_the_required_part(tmp_path, expected, tiny_artifacts):
    (tmp_path / EXPECTED).write_text(json.dumps(expected))
    (tmp_path / "pytorch-fp16").symlink_to(tiny_artifacts["pytorch-fp16"])
    findings = {finding.name: finding for finding in gpu.run(tmp_path, "cpu")}
    assert findings["onnx-fp16"].passed
    assert "not run" in findings["onnx-fp16"].result
    assert any(name.startswith("pytorch-fp16") for name in findings)
    assert 0 < travelling_bytes(tmp_path) < gpu.MAX_BYTES
