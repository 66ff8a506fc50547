"""The commands and the Python of README and docs run as they stand: all blocks of a page in order, in one folder like a clone.

The folder contains the shipped model and images, `photo.jpg`, `photos/`, and the records of two runs. `build/artifacts` contains an
artifact unless the page exports one itself.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import blocks, name_of, pages
from tests.golden.__main__ import before_and_after
from tests.paths import ROOT
from toolkit.records.record_file import write_records

QUICK = {"docs/reference/python-api.md"}
"""Pages that take seconds; the others export, package or measure."""
ARTIFACT = "onnx-int8"
TIMEOUT_S = 900


def executed(page):
    return [block for block in blocks(page) if block.language in ("sh", "python") and not block.tags]


EXECUTED = [
    pytest.param(page, id=name_of(page), marks=[] if name_of(page) in QUICK else [pytest.mark.full]) for page in pages() if executed(page)
]


@pytest.fixture
def folder(tmp_path):
    """A folder with what pages take for granted."""
    sample = ROOT / "toolkit" / "sample"
    for name in ("models", "toolkit"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copy(sample / "dog.jpg", tmp_path / "photo.jpg")
    (tmp_path / "photos").mkdir()
    for name in ("dog", "horses", "coffee"):
        shutil.copy(sample / f"{name}.jpg", tmp_path / "photos")
    for run in before_and_after():
        write_records(tmp_path / run.name, run.records)
    return tmp_path


def run(block, folder):
    """Execute a block with this Python's `toolkit` first on the path."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", block.text] if block.language == "python" else ["bash", "-euo", "pipefail", "-c", block.text]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment, timeout=TIMEOUT_S)


@pytest.mark.parametrize("page", EXECUTED)
def test_blocks_of_a_page_run_in_order(page, folder, mini_artifacts):
    if not any("toolkit export models" in block.text for block in executed(page)):
        artifact = mini_artifacts[ARTIFACT]
        shutil.copytree(artifact, folder / "build" / "artifacts" / artifact.name)
    for block in executed(page):
        ended = run(block, folder)
        assert ended.returncode == 0, f"{block}\n{block.text}\n{ended.stdout}\n{ended.stderr}"
