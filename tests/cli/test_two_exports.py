"""Several exports to one folder at the same time: the artifact is complete, and each other export succeeds or fails with one line."""

import subprocess
import sys

import pytest

from runtimes.artifact.folder import open_artifact
from runtimes.artifact.verified_files import open_verified


@pytest.mark.full
@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]], ids=["new", "overwrite"])
def test_two_exports_of_one_recipe(tiny_checkpoint, tmp_path, overwrite):
    command = [sys.executable, "-m", "toolkit.cli", "export", str(tiny_checkpoint), "--recipe", "onnx-int8", "--on-gate-failure", "write"]
    exports = [
        subprocess.Popen([*command, "-o", str(tmp_path), *overwrite], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    results = [(export.communicate()[1], export.returncode) for export in exports]
    assert 0 in [code for _, code in results]
    for errors, code in results:
        lines = [line for line in errors.splitlines() if line.startswith("Error: ")]
        assert "Traceback" not in errors
        assert len(lines) == code
        assert all("another process" in line or "exists already" in line for line in lines)
    artifact = open_artifact(tmp_path / "tiny-onnx-int8")
    with open_verified(artifact) as payload:
        for entry in artifact.manifest.files.values():
            payload.read(entry.role)
    assert sorted(file.name for file in artifact.path.iterdir()) == sorted([*artifact.manifest.files, "manifest.json"])
    assert [file.name for file in tmp_path.iterdir()] == ["tiny-onnx-int8"]
