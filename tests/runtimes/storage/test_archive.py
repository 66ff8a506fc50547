"""Archives: what other tools make of ours, what ours makes of others' and of damaged ones, and that nothing is left of what was refused."""

import gzip
import io
import json
import os
import random
import struct
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from runtimes.artifact.folder import open_artifact
from runtimes.artifact.manifest import MANIFEST_NAME, FileEntry
from runtimes.errors import ArchiveError, DigestError, ManifestError, OutputExistsError
from runtimes.storage.archive import LIMITS, unpack, write_archive
from runtimes.storage.archive_formats import FORMS, GZIP_HEADER, Member, tar_header

SUFFIXES = [form.suffix for form in FORMS]


def members(artifact, manifest):
    return [Member(name=name, size=entry.bytes, blocks=iter([(artifact / name).read_bytes()])) for name, entry in manifest.files.items()]


def written(artifact, path, manifest=None):
    """The archive of an artifact, or of its files under another manifest."""
    manifest = manifest or open_artifact(artifact).manifest
    with path.open("w+b") as stream:
        write_archive(stream, path, manifest, members(artifact, manifest))
    return path


def tarred(path, files):
    """A tar.gz of (name, content, changes to the header) in the spelling closest to ours."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content, changes in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in changes.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))
    return gzipped(path, stream.getvalue())


def gzipped(path, content):
    body = gzip.compress(content, mtime=0)
    path.write_bytes(GZIP_HEADER + body[10:])
    return path


def plain(content):
    """A tar as we end it: after two empty blocks, not padded to 10,240 bytes."""
    content = content.rstrip(b"\0")
    return content + bytes(-len(content) % 512) + bytes(1024)


def refused(archive, tmp_path, error=ArchiveError):
    """The message with which an archive is refused; nothing of it may be left."""
    folder = tmp_path / "where"
    folder.mkdir(exist_ok=True)
    with pytest.raises(error) as found:
        unpack(archive, folder / "target")
    assert list(folder.iterdir()) == []
    return str(found.value)


@pytest.fixture
def artifact(tiny_artifacts):
    return tiny_artifacts["onnx-int8"]


@pytest.fixture
def content(artifact):
    """(name, bytes, no changes) of every file, in our order."""
    names = [MANIFEST_NAME, *open_artifact(artifact).manifest.files]
    return [(name, (artifact / name).read_bytes(), {}) for name in names]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_comes_out_is_what_went_in(artifact, tmp_path, suffix):
    manifest = unpack(written(artifact, tmp_path / f"a{suffix}"), tmp_path / "new" / "b")
    assert manifest == open_artifact(artifact).manifest
    assert {file.name: file.read_bytes() for file in (tmp_path / "new" / "b").iterdir()} == {
        file.name: file.read_bytes() for file in artifact.iterdir()
    }
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["b"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_input_gives_the_same_bytes(artifact, tmp_path, suffix, monkeypatch):
    first = written(artifact, tmp_path / f"a{suffix}").read_bytes()
    os.utime(artifact / MANIFEST_NAME, (1e9, 1e9))
    monkeypatch.setattr("time.time", lambda: 0.0)
    assert written(artifact, tmp_path / f"b{suffix}").read_bytes() == first


def test_other_tools_read_it(artifact, content, tmp_path):
    with tarfile.open(written(artifact, tmp_path / "a.tar.gz")) as archive:
        assert [(info.name, archive.extractfile(info).read(), {}) for info in archive] == content
        assert all(info.isreg() and (info.mtime, info.mode, info.uid) == (0, 0o644, 0) for info in archive)
    with zipfile.ZipFile(written(artifact, tmp_path / "a.zip")) as archive:
        assert archive.testzip() is None
        assert [(info.filename, archive.read(info), {}) for info in archive.infolist()] == content


def test_a_plain_tar_of_the_same_files_is_the_same_but_for_its_spelling(content, artifact, tmp_path):
    """The helper of the tests below spells what is accepted, so that each of them is refused for what it changes alone."""
    path = tarred(tmp_path / "a.tar.gz", [(name, data, {"mode": 0o644}) for name, data, _ in content])
    assert "hidden behind its last member" in refused(path, tmp_path)  # Python pads it
    unpack(gzipped(path, plain(gzip.decompress(path.read_bytes()))), tmp_path / "target")
    assert open_artifact(tmp_path / "target").manifest == open_artifact(artifact).manifest


CHANGES = {
    "link": {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd", "size": 0},
    "hard link": {"type": tarfile.LNKTYPE, "linkname": MANIFEST_NAME, "size": 0},
    "fifo": {"type": tarfile.FIFOTYPE, "size": 0},
    "device": {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 5, "size": 0},
    "folder": {"type": tarfile.DIRTYPE, "size": 0},
    "old kind of file": {"type": tarfile.AREGTYPE},
    "sparse": {"type": tarfile.GNUTYPE_SPARSE},
    "owner": {"uid": 1000},
    "name of an owner": {"uname": "root"},
    "mode": {"mode": 0o4755},
    "time": {"mtime": 1},
    "traversal": {"name": "../outside"},
    "absolute": {"name": "/outside"},
    "backslash": {"name": "..\\outside"},
    "drive": {"name": "C:outside"},
    "nul": {"name": "out\0side"},
    "case twin": {"name": "MANIFEST.json"},
    "long name": {"name": "x/" * 60 + "y"},
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_member_spelled_otherwise_is_refused(content, tmp_path, change):
    ours = [(name, data, {"mode": 0o644}) for name, data, _ in content]
    name, data, mode = ours[1]
    spoiled = tarred(tmp_path / "a.tar.gz", [ours[0], (name, data, mode | CHANGES[change]), *ours[2:]])
    refused(gzipped(spoiled, plain(gzip.decompress(spoiled.read_bytes()))), tmp_path)
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a/b", "a\\b", "C:x", ".x", "nul.onnx", "COM1", "x.", "x ", "ü", "x\0", MANIFEST_NAME.upper()]
)
def test_a_name_that_is_not_one_file_everywhere_is_refused(artifact, tmp_path, name):
    manifest = open_artifact(artifact).manifest
    declared = replace(manifest, files={**manifest.files, name: FileEntry(role="x", bytes=0, sha256="0" * 64)}).sealed()
    with pytest.raises(ArchiveError), Path(os.devnull).open("wb") as stream:
        write_archive(stream, tmp_path / "a.zip", declared, [])
    body = tar_header(MANIFEST_NAME, len(declared.to_bytes())) + declared.to_bytes()
    path = gzipped(tmp_path / "a.tar.gz", body + bytes(-len(body) % 512) + bytes(1024))
    refused(path, tmp_path, (ArchiveError, ManifestError))


def test_limits(artifact, tmp_path):
    manifest = open_artifact(artifact).manifest
    for files, said in (
        ({f"f{n}": FileEntry(role=str(n), bytes=0, sha256="0" * 64) for n in range(LIMITS.members)}, "declares 65 files"),
        ({"big": FileEntry(role="x", bytes=1 << 33, sha256="0" * 64)}, "more than 200 to 1"),
    ):
        content = replace(manifest, files=files).sealed().to_bytes()
        body = tar_header(MANIFEST_NAME, len(content)) + content
        assert said in refused(gzipped(tmp_path / "a.tar.gz", body + bytes(-len(body) % 512) + bytes(1024)), tmp_path)
    huge = tar_header(MANIFEST_NAME, 2 << 20) + bytes(2 << 20) + bytes(1024)
    assert "claims 2,097,152 bytes" in refused(gzipped(tmp_path / "a.tar.gz", huge), tmp_path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_missing_swapped_and_extra_members_are_refused(artifact, content, tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    form = next(form for form in FORMS if form.suffix == suffix)
    other = ("other", b"x", {})
    for files in (content[:-1], [content[0], *reversed(content[1:])], [*content, other], [*content, content[-1]], content[1:], []):
        with path.open("w+b") as stream:
            form.write(stream, [Member(name=name, size=len(data), blocks=iter([data])) for name, data, _ in files])
        assert str(path) in refused(path, tmp_path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damage_is_refused_wherever_it_is(artifact, tmp_path, suffix):
    whole = written(artifact, tmp_path / f"whole{suffix}").read_bytes()
    path, chosen = tmp_path / f"a{suffix}", random.Random(0)
    for _ in range(30):
        at = chosen.randrange(len(whole))
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << chosen.randrange(8)]) + whole[at + 1 :])
        refused(path, tmp_path, (ArchiveError, ManifestError))
        path.write_bytes(whole[:at])
        refused(path, tmp_path)
    path.write_bytes(whole + b"\0")
    assert "hidden behind its last member" in refused(path, tmp_path)
    path.write_bytes(whole + whole)
    refused(path, tmp_path)


def test_a_zip_of_another_spelling_is_refused(content, artifact, tmp_path):
    for compression, comment in ((zipfile.ZIP_DEFLATED, b""), (zipfile.ZIP_STORED, b"comment")):
        with zipfile.ZipFile(tmp_path / "a.zip", "w", compression) as archive:
            for name, data, _ in content:
                archive.writestr(zipfile.ZipInfo(name), data, compression)
            archive.comment = comment
        refused(tmp_path / "a.zip", tmp_path)
    whole = bytearray(written(artifact, tmp_path / "b.zip").read_bytes())
    entry = whole.rindex(b"PK\x01\x02")
    struct.pack_into("<L", whole, entry + 42, 0)  # the last entry of the directory points at the first member: an overlap
    (tmp_path / "b.zip").write_bytes(whole)
    assert "its directory names something else" in refused(tmp_path / "b.zip", tmp_path)


def test_a_folder_that_is_there_is_left_alone(artifact, tmp_path):
    archive = written(artifact, tmp_path / "a.zip")
    target = tmp_path / "target"
    target.mkdir()
    (target / "mine").write_text("mine")
    with pytest.raises(OutputExistsError, match="Unpack into another folder"):
        unpack(archive, target)
    assert [file.name for file in target.iterdir()] == ["mine"]
    (target / "mine").unlink()
    unpack(archive, target)  # an empty one is as good as none
    assert open_artifact(target)


def test_another_package_than_the_senders_is_not_unpacked(artifact, tmp_path):
    archive, digest = written(artifact, tmp_path / "a.zip"), open_artifact(artifact).manifest.digest
    with pytest.raises(DigestError, match=digest):
        unpack(archive, tmp_path / "target", "0" * 64)
    assert [file.name for file in tmp_path.iterdir()] == ["a.zip"]
    unpack(archive, tmp_path / "target", digest.upper())


def test_what_is_no_archive(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"")
    assert "is no .tar.gz or .zip file" in refused(tmp_path / "a.zip", tmp_path)
    assert "there is no such file" in refused(tmp_path / "b.zip", tmp_path)
    assert "there is no such file" in refused(tmp_path, tmp_path)


def test_a_manifest_that_is_damaged_is_named_as_a_part_of_the_archive(artifact, content, tmp_path):
    spoiled = json.dumps(json.loads(content[0][1]) | {"name": "other"}).encode()
    body = tar_header(MANIFEST_NAME, len(spoiled)) + spoiled
    path = gzipped(tmp_path / "a.tar.gz", body + bytes(-len(body) % 512) + bytes(1024))
    assert f"{path / MANIFEST_NAME}: its digest does not match" in refused(path, tmp_path, ManifestError)


def test_what_no_archive_can_hold_is_refused_when_writing(artifact, tmp_path):
    manifest = open_artifact(artifact).manifest
    for name, size, said in (("x" * 101, 0, "no name of more than 100 bytes"), ("x", 8**11, "holds 8,589,934,591 bytes at most")):
        declared = replace(manifest, files={name: FileEntry(role="x", bytes=size, sha256="0" * 64)}).sealed()
        with pytest.raises(ArchiveError, match=said), Path(os.devnull).open("wb") as stream:
            write_archive(stream, tmp_path / "a.tar.gz", declared, [])
    with pytest.raises(ArchiveError, match=r"ends in \.tar\.gz or \.zip"), Path(os.devnull).open("wb") as stream:
        write_archive(stream, tmp_path / "a.rar", manifest, [])
