"""An artifact on disk: what is missing is said, and how large it is."""

import shutil
from pathlib import Path

import pytest

import runtimes
from runtimes.artifact.folder import open_artifact
from runtimes.errors import ArtifactCorruptError, ArtifactMissingError, ManifestError


@pytest.fixture
def artifact(tiny_artifacts, tmp_path):
    """A copy that a test may spoil."""
    return Path(shutil.copytree(tiny_artifacts["onnx-int8"], tmp_path / "tiny"))


def test_no_manifest_no_artifact(artifact):
    (artifact / "manifest.json").unlink()
    with pytest.raises(ArtifactMissingError) as caught:
        open_artifact(artifact)
    parent = artifact.parent
    assert str(caught.value) == (
        f"{artifact}: no artifact here (no manifest.json). Make one with: toolkit export CHECKPOINT --output {parent}"
    )


def test_the_size_is_that_of_every_file(artifact):
    expected = sum(file.stat().st_size for file in artifact.iterdir())
    assert open_artifact(artifact).total_bytes == expected


def test_a_reader_that_cannot_be_helped(artifact):
    """Files that are gone while the manifest stays the same are damage, not a replacement."""
    (file,) = artifact.glob("encoder-*.onnx")
    file.unlink()
    with pytest.raises(ArtifactCorruptError, match="is missing"):
        runtimes.load(artifact)
    (artifact / "manifest.json").write_bytes(b"{}")
    with pytest.raises(ManifestError, match="missing applied, architecture"):
        runtimes.load(artifact)
