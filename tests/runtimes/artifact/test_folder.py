"""An artifact on disk: what is missing is said, and how large it is."""

import os
import shutil
from pathlib import Path

import pytest

import runtimes
from runtimes.artifact.folder import open_artifact
from runtimes.errors import ArtifactCorruptError, ArtifactMissingError, ManifestError
from runtimes.storage.archive import unpack
from runtimes.verification.verify import verify
from toolkit.packaging.package import package


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


def test_the_size_is_that_of_the_model_whatever_else_is_in_the_folder(artifact, tmp_path):
    expected = sum(file.stat().st_size for file in artifact.iterdir())
    assert open_artifact(artifact).total_bytes == expected
    (artifact / "stray.bin").write_bytes(bytes(1000))
    assert open_artifact(artifact).total_bytes == expected
    (artifact / "stray.bin").unlink()
    package(artifact, tmp_path / "a.tar.gz")
    unpack(tmp_path / "a.tar.gz", tmp_path / "unpacked")
    unpacked = open_artifact(tmp_path / "unpacked")
    assert unpacked.total_bytes == expected - (artifact / "manifest.json").stat().st_size + unpacked.manifest_path.stat().st_size
    assert set(unpacked.component_bytes) == set(open_artifact(artifact).component_bytes)


@pytest.mark.parametrize("recipe", ["onnx-int8", "onnx-int8-single", "pytorch-int8"])
@pytest.mark.parametrize("layout", ["../blobs", "..data"])
def test_files_may_be_links(tiny_artifacts, tmp_path, drawn_images, recipe, layout):
    """The hub's cache links each file to a blob of another name outside the folder; a mounted config map to a folder inside it."""
    source, folder = tiny_artifacts[recipe], tmp_path / "snapshot"
    folder.mkdir()
    (folder / layout).mkdir()
    for number, file in enumerate(source.iterdir()):
        blob = f"{number:040x}" if layout == "../blobs" else file.name
        shutil.copyfile(file, folder / layout / blob)
        (folder / file.name).symlink_to(f"{layout}/{blob}")
    expected = runtimes.load(source, threads=1).caption([drawn_images[0].path])
    assert runtimes.load(folder, threads=1).caption([drawn_images[0].path]) == expected
    assert open_artifact(folder).total_bytes == open_artifact(source).total_bytes


def test_loading_reads_no_optional_file(artifact, tmp_path):
    """Wheels and golden captions of an unpacked package cost a start nothing; `verify` reads them."""
    package(artifact, tmp_path / "a.tar.gz")
    unpack(tmp_path / "a.tar.gz", tmp_path / "unpacked")
    folder = tmp_path / "unpacked"
    optional = [name for name, entry in open_artifact(folder).manifest.files.items() if entry.optional]
    assert {"README.md", "golden.json", "golden-logits.f32", "golden-cat.jpg"} <= set(optional)
    for name in optional:
        (folder / name).unlink()
        os.mkfifo(folder / name)  # reading one would be noticed
    assert runtimes.load(folder, threads=1).manifest.digest == open_artifact(folder).manifest.digest
    with pytest.raises(ArtifactCorruptError) as caught:
        verify(folder)
    assert [name for name in optional if name not in str(caught.value)] == []


def test_a_reader_that_cannot_be_helped(artifact):
    """Files that are gone while the manifest stays the same are damage, not a replacement."""
    (file,) = artifact.glob("encoder-*.onnx")
    file.unlink()
    with pytest.raises(ArtifactCorruptError, match="missing"):
        runtimes.load(artifact)
    (artifact / "manifest.json").write_bytes(b"{}")
    with pytest.raises(ManifestError, match="missing applied, contract"):
        runtimes.load(artifact)
