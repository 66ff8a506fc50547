"""Artifacts that tests of writing lay over each other."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def artifact(tiny_artifacts, tmp_path):
    """A copy that a test may spoil."""
    return Path(shutil.copytree(tiny_artifacts["onnx-int8"], tmp_path / "tiny"))


@pytest.fixture
def old_and_new(tiny_artifacts):
    """Two artifacts of different recipes."""
    return tiny_artifacts["onnx-int8"], tiny_artifacts["pytorch-fp32"]
