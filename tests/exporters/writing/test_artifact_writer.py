"""Test writing an artifact: a new one, one over another, and paths that are refused."""

from dataclasses import replace
from pathlib import Path

import pytest

import runtimes
from exporters.writing.artifact_writer import write_artifact
from runtimes.artifact.folder import open_artifact
from runtimes.errors import OutputError, OutputExistsError
from tests.exporters.writing.stopped_writer import is_whole, parts, snapshot


def test_a_new_artifact(tiny_artifacts, tmp_path):
    source = open_artifact(tiny_artifacts["onnx-fp32"])
    path = tmp_path / "deep" / "er" / "new"
    payload = parts(source.path, tmp_path / "parts")
    written = write_artifact(path, replace(source.manifest, name="new"), payload, overwrite=False)
    assert open_artifact(path) == written
    assert written.manifest == replace(source.manifest, name="new", files=written.manifest.files)
    assert written.manifest.files == source.manifest.files  # the same content has the same hash
    assert is_whole(path)
    assert [file.name for file in path.parent.iterdir()] == ["new"]  # no lock, no working folder
    assert [file.exists() for file in payload.values()] == [False] * 5  # moved, not copied
    assert {oct(file.stat().st_mode & 0o777) for file in path.iterdir()} == {"0o644"}
    assert runtimes.load(path).manifest == written.manifest


def test_an_empty_folder_is_used(old_and_new, tmp_path):
    source = open_artifact(old_and_new[0])
    (tmp_path / "new").mkdir()
    write_artifact(tmp_path / "new", source.manifest, parts(source.path, tmp_path / "parts"), overwrite=False)
    assert is_whole(tmp_path / "new")


def test_an_existing_artifact_is_refused_and_not_changed(old_and_new, artifact, tmp_path):
    new = open_artifact(old_and_new[1])
    before = snapshot(artifact)
    payload = parts(new.path, tmp_path / "parts")
    with pytest.raises(OutputExistsError) as caught:
        write_artifact(artifact, new.manifest, payload, overwrite=False)
    assert str(caught.value) == f"{artifact}: exists already; nothing was changed. Use --overwrite to replace it."
    assert snapshot(artifact) == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["parts", "tiny"]
    assert [file.exists() for file in payload.values()] == [True] * 2


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_path_that_is_no_artifact_is_never_replaced(old_and_new, tmp_path, kind):
    new = open_artifact(old_and_new[1])
    path = tmp_path / "photos"
    if kind == "folder":
        path.mkdir()
        (path / "holiday.jpg").write_bytes(b"dear")
    else:
        path.write_bytes(b"dear")
    with pytest.raises(OutputError) as caught:
        write_artifact(path, new.manifest, parts(new.path, tmp_path / "parts"), overwrite=True)
    assert str(caught.value) == (f"{path}: cannot write: it is not an artifact, so --overwrite does not replace it. Nothing was changed.")
    assert (path / "holiday.jpg" if kind == "folder" else path).read_bytes() == b"dear"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["parts", "photos"]


def test_replacing_removes_all_old_files(old_and_new, artifact, tmp_path):
    new = open_artifact(old_and_new[1])
    (artifact / ".manifest.json-left").write_bytes(b"of a killed writer")
    written = write_artifact(artifact, new.manifest, parts(new.path, tmp_path / "parts"), overwrite=True)
    assert written.manifest == new.manifest
    assert is_whole(artifact)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["parts", "tiny"]


def test_replacing_an_artifact_by_itself_keeps_every_byte(artifact, tmp_path):
    before = {name: content for name, (content, _) in snapshot(artifact).items()}
    same = open_artifact(artifact)
    write_artifact(artifact, same.manifest, parts(artifact, tmp_path / "parts"), overwrite=True)
    assert {name: content for name, (content, _) in snapshot(artifact).items()} == before


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_exporting_again_repairs_a_damaged_file(artifact, tmp_path, damage):
    """`ArtifactCorruptError` advises this. The new file has the damaged file's name, because the name contains the expected hash."""
    before = open_artifact(artifact)
    payload = parts(artifact, tmp_path / "parts")
    file = before.path_of("decoder")
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(content[:-9] if damage == "cut" else content[:-1] + bytes([content[-1] ^ 1]))
    write_artifact(artifact, before.manifest, payload, overwrite=True)
    assert file.read_bytes() == content
    assert is_whole(artifact)


def test_an_error_of_the_system_gives_one_line(old_and_new, tmp_path):
    """The line contains the system's text, and that nothing was changed."""
    source = open_artifact(old_and_new[0])
    with pytest.raises(OutputError) as caught:
        write_artifact(tmp_path / "new", source.manifest, {"tokenizer": Path("/dev/null/x")}, overwrite=False)
    assert str(caught.value) == f"{tmp_path / 'new'}: cannot write: Not a directory. Nothing was changed."
    assert list(tmp_path.iterdir()) == []
