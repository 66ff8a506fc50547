"""Archives: other tools read them, archives of other tools are read, damaged ones are refused, and refused ones leave no files."""

import gzip
import io
import os
import random
import subprocess
import tarfile
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from runtimes.artifact.folder import open_artifact
from runtimes.artifact.manifest import MANIFEST_NAME, FileEntry
from runtimes.errors import ArchiveError, DigestError, ManifestError, OutputExistsError, RequestError
from runtimes.storage.archive import MAX_MEMBER_BYTES, MAX_MEMBERS, unpack, write_archive
from tests.fuzz.hostile_tar import END, files_in, member, packed


def written(artifact, path, manifest=None):
    """Write the archive of an artifact, or of its files with another manifest."""
    manifest = manifest or open_artifact(artifact).manifest
    with path.open("wb") as stream:
        write_archive(stream, path, manifest, iter([iter([(artifact / name).read_bytes()]) for name in manifest.files]))
    return path


def refused(archive, tmp_path, error=ArchiveError):
    """Return the message with which an archive is refused, after a check that no file is left."""
    folder = tmp_path / "where"
    folder.mkdir(exist_ok=True)
    with pytest.raises(error) as caught:
        unpack(archive, folder / "target")
    assert list(folder.iterdir()) == []
    return str(caught.value)


@pytest.fixture
def artifact(tiny_artifacts):
    return tiny_artifacts["onnx-int8"]


@pytest.fixture
def content(artifact):
    """Name → bytes of every file, in the order of an archive."""
    return files_in(artifact)


def tarred(path, files, **options):
    """Write a tar.gz file with Python's tarfile."""
    with tarfile.open(path, "w:gz", **options) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.uid, info.uname, info.mode = len(data), 1_700_000_000, 1000, "someone", 0o4755
            archive.addfile(info, io.BytesIO(data))
    return path


def test_unpacking_restores_every_file(artifact, content, tmp_path):
    manifest = unpack(written(artifact, tmp_path / "a.tar.gz"), tmp_path / "new" / "b")
    assert manifest == open_artifact(artifact).manifest
    assert {file.name: file.read_bytes() for file in (tmp_path / "new" / "b").iterdir()} == content
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["b"]


def test_the_same_input_gives_the_same_bytes(artifact, tmp_path, monkeypatch):
    first = written(artifact, tmp_path / "a.tar.gz").read_bytes()
    os.utime(artifact / MANIFEST_NAME, (1e9, 1e9))
    monkeypatch.setattr("time.time", lambda: 0.0)
    assert written(artifact, tmp_path / "b.tar.gz").read_bytes() == first
    assert first[:10] == bytes.fromhex("1f8b08000000000000ff"), "no name and no time in gzip's header"


def test_other_tools_read_an_archive(artifact, content, tmp_path):
    path = written(artifact, tmp_path / "a.tar.gz")
    with tarfile.open(path) as archive:
        assert {info.name: archive.extractfile(info).read() for info in archive} == content
        assert all(info.isreg() and (info.mtime, info.mode, info.uid, info.gid) == (0, 0o644, 0, 0) for info in archive)
    listing = subprocess.run(["tar", "-tzf", path], capture_output=True, text=True, check=True)
    assert (listing.stdout.splitlines(), listing.stderr) == (list(content), "")


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_an_archive_of_another_tool_is_read_without_its_owners_modes_and_times(artifact, content, tmp_path, form):
    unpack(tarred(tmp_path / "a.tar.gz", content, format=form), tmp_path / "a")
    assert {file.name: file.read_bytes() for file in (tmp_path / "a").iterdir()} == content
    assert {file.stat().st_mode & 0o7000 for file in (tmp_path / "a").iterdir()} == {0}
    subprocess.run(["tar", "-czf", tmp_path / "b.tar.gz", "-C", artifact, *content], check=True)
    unpack(tmp_path / "b.tar.gz", tmp_path / "b")
    assert {file.name: file.read_bytes() for file in (tmp_path / "b").iterdir()} == content


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE, tarfile.GNUTYPE_SPARSE, tarfile.XHDTYPE]
)
def test_a_member_that_is_not_a_regular_file_is_refused(content, tmp_path, kind):
    (name, _), *others = list(content.items())[1:]
    start = member(MANIFEST_NAME, content[MANIFEST_NAME])
    spoiled = start + member(name, b"", at=156, value=kind + b"/etc/passwd") + b"".join(member(*each) for each in others)
    (tmp_path / "a.tar.gz").write_bytes(packed(spoiled + END))
    assert "is not a regular file" in refused(tmp_path / "a.tar.gz", tmp_path)


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a/b", "a\\b", "C:x", ".x", "nul.onnx", "COM1", "x.", "x ", "ü", "x\0", "x" * 101, MANIFEST_NAME.upper()]
)
def test_a_name_that_is_not_one_file_everywhere_is_refused(artifact, tmp_path, name):
    manifest = open_artifact(artifact).manifest
    declared = replace(manifest, files={**manifest.files, name: FileEntry(role="x", bytes=0, sha256="0" * 64)})
    with pytest.raises(ArchiveError), Path(os.devnull).open("wb") as stream:
        write_archive(stream, tmp_path / "a.tar.gz", declared, iter([]))
    (tmp_path / "a.tar.gz").write_bytes(packed(member(MANIFEST_NAME, declared.content) + END))
    refused(tmp_path / "a.tar.gz", tmp_path, (ArchiveError, ManifestError))


def test_limits(artifact, tmp_path):
    manifest, path = open_artifact(artifact).manifest, tmp_path / "a.tar.gz"
    for files, message in (
        ({f"f{n}": FileEntry(role=str(n), bytes=0, sha256="0" * 64) for n in range(MAX_MEMBERS)}, "declares 65 files"),
        ({"big": FileEntry(role="x", bytes=1 << 32, sha256="0" * 64)}, "more than 200 to 1"),
        ({"big": FileEntry(role="x", bytes=MAX_MEMBER_BYTES + 1, sha256="0" * 64)}, "8,589,934,591 bytes at most"),
    ):
        path.write_bytes(packed(member(MANIFEST_NAME, replace(manifest, files=files).content) + END))
        assert message in refused(path, tmp_path)
    path.write_bytes(packed(member(MANIFEST_NAME, bytes(2 << 20)) + END))
    assert "2,097,152 bytes" in refused(path, tmp_path)


def test_missing_swapped_and_extra_members_are_refused(content, tmp_path):
    path, files = tmp_path / "a.tar.gz", list(content.items())
    for members in (files[:-1], [files[0], *reversed(files[1:])], [*files, ("other", b"x")], [*files, files[-1]], files[1:], []):
        path.write_bytes(packed(b"".join(member(*each) for each in members) + END))
        assert str(path) in refused(path, tmp_path)


def test_damage_at_any_position_is_refused(artifact, content, tmp_path):
    whole = written(artifact, tmp_path / "whole.tar.gz").read_bytes()
    path, chosen = tmp_path / "a.tar.gz", random.Random(0)
    for _ in range(30):
        at = chosen.randrange(10, len(whole))  # the first ten bytes are gzip's header, whose fields are not checked
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << chosen.randrange(8)]) + whole[at + 1 :])
        refused(path, tmp_path, (ArchiveError, ManifestError))
        path.write_bytes(whole[:at])
        refused(path, tmp_path)
    for behind in (b"\0", b"x", whole, gzip.compress(b"")):
        path.write_bytes(whole + behind)
        assert "follows its last member" in refused(path, tmp_path)
    path.write_bytes(packed(b"".join(member(*each) for each in content.items()) + END + bytes(1 << 20)))
    assert "follows its last member" in refused(path, tmp_path)


@pytest.mark.full
def test_a_bomb_is_not_inflated(content, tmp_path):
    """A member inflates to 1 GB where the manifest declares a few bytes. The excess is neither inflated nor written."""
    files = list(content.items())
    deflate = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    bomb = deflate.compress(member(*files[0]) + member(files[1][0], b"x", size=1 << 30))
    bomb += b"".join(deflate.compress(bytes(1 << 24)) for _ in range(64)) + deflate.flush()
    (tmp_path / "a.tar.gz").write_bytes(bomb)
    assert "1,073,741,824 bytes where its manifest declares" in refused(tmp_path / "a.tar.gz", tmp_path)


def test_an_existing_folder_is_not_changed(artifact, tmp_path):
    archive = written(artifact, tmp_path / "a.tar.gz")
    target = tmp_path / "target"
    target.mkdir()
    (target / "mine").write_text("mine")
    with pytest.raises(OutputExistsError, match="exists"):
        unpack(archive, target)
    assert [file.name for file in target.iterdir()] == ["mine"]
    (target / "mine").unlink()
    unpack(archive, target)  # an empty folder is accepted
    assert open_artifact(target)


def test_another_package_than_the_senders_is_not_unpacked(artifact, tmp_path):
    archive, digest = written(artifact, tmp_path / "a.tar.gz"), open_artifact(artifact).manifest.digest
    with pytest.raises(DigestError, match=digest):
        unpack(archive, tmp_path / "target", "0" * 64)
    assert [file.name for file in tmp_path.iterdir()] == ["a.tar.gz"]
    unpack(archive, tmp_path / "target", digest.upper())


def test_files_that_are_not_archives(artifact, content, tmp_path):
    path = tmp_path / "a.tar.gz"
    path.write_bytes(b"")
    assert "cut off" in refused(path, tmp_path)
    for other in (b"PK\x03\x04", b"<html>404 Not Found</html>", b"".join(member(*each) for each in content.items()) + END):
        path.write_bytes(other)
        assert "is not a .tar.gz file" in refused(path, tmp_path)
    assert "no such file" in refused(tmp_path / "b.tar.gz", tmp_path, RequestError)
    assert "no such file" in refused(tmp_path, tmp_path, RequestError)


def test_a_manifest_that_is_damaged_is_named_as_a_part_of_the_archive(content, tmp_path):
    path = tmp_path / "a.tar.gz"
    path.write_bytes(packed(member(MANIFEST_NAME, content[MANIFEST_NAME][:-10]) + END))
    assert f"{path / MANIFEST_NAME}: not JSON" in refused(path, tmp_path, ManifestError)
