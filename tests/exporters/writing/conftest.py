"""Artifacts for tests that write one over another."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def artifact(tiny_artifacts, tmp_path):
    """Return a copy that a test may modify."""
    return Path(shutil.copytree(tiny_artifacts["onnx-int8"], tmp_path / "tiny"))


@pytest.fixture
def old_and_new(tiny_artifacts):
    """Return two artifacts of different recipes."""
    return tiny_artifacts["onnx-int8"], tiny_artifacts["pytorch-fp32"]
