"""An artifact on disk: errors for missing files, sizes, symbolic links, optional files."""

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
    """A copy that a test may damage."""
    return Path(shutil.copytree(tiny_artifacts["onnx-int8"], tmp_path / "tiny"))


def test_a_folder_without_a_manifest_is_not_an_artifact(artifact):
    (artifact / "manifest.json").unlink()
    with pytest.raises(ArtifactMissingError) as caught:
        open_artifact(artifact)
    assert str(caught.value) == (f"{artifact}: no artifact here (no manifest.json). Make an artifact with: toolkit export CHECKPOINT")


def test_the_size_excludes_undeclared_and_optional_files(artifact, tmp_path):
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
    """The hub's cache links files to blobs outside the folder; a mounted config map links them to a folder inside it."""
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
    """`load` does not read the wheels and golden captions of an unpacked package; `verify` does."""
    package(artifact, tmp_path / "a.tar.gz")
    unpack(tmp_path / "a.tar.gz", tmp_path / "unpacked")
    folder = tmp_path / "unpacked"
    optional = [name for name, entry in open_artifact(folder).manifest.files.items() if entry.optional]
    assert {"README.md", "golden.json", "golden-logits.f32", "golden-cat.jpg"} <= set(optional)
    for name in optional:
        (folder / name).unlink()
        os.mkfifo(folder / name)  # opening a pipe would block or fail
    assert runtimes.load(folder, threads=1).manifest.digest == open_artifact(folder).manifest.digest
    with pytest.raises(ArtifactCorruptError) as caught:
        verify(folder)
    assert [name for name in optional if name not in str(caught.value)] == []


def test_a_missing_file_under_an_unchanged_manifest_is_an_error(artifact):
    """`load` retries only if the manifest has changed."""
    (file,) = artifact.glob("encoder-*.onnx")
    file.unlink()
    with pytest.raises(ArtifactCorruptError, match="missing"):
        runtimes.load(artifact)
    (artifact / "manifest.json").write_bytes(b"{}")
    with pytest.raises(ManifestError, match="missing applied, contract"):
        runtimes.load(artifact)
