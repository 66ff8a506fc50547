"""Tar files are listed by position: odd names, cut and hostile files."""

import bz2
import gzip
import hashlib
import io
import lzma
import os
import tarfile

import pytest

from runtimes.errors import DatasetError, ImageReadError
from toolkit.distribute.reading import read_entries
from toolkit.distribute.sources.tar import list_tar
from toolkit.distribute.stores.local import LocalStore
from toolkit.distribute.stores.stores import Stores


def write_tar(path, members, format=tarfile.PAX_FORMAT):
    with tarfile.open(path, "w", format=format, encoding="utf-8", errors="surrogateescape") as archive:
        for name, content in members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return str(path)


def listed(path, *, hashed=True):
    return list(list_tar(path, LocalStore(), hashed=hashed))


def contents(entries):
    return list(read_entries(entries, Stores(), "image", readers=2))


ODD = [
    ("deep/er/a.b.c.jpg", b"dots"),
    ("with space.png", b"space"),
    ("same.jpg", b"first"),
    ("same.jpg", b"second"),
    ("caf\u00e9.jpg", b"unicode"),
    ("bad-\udcff.jpg", b"not UTF-8"),
    ("x" * 300 + ".jpg", b"long"),
    ("../../up.jpg", b"up"),
    ("/absolute.jpg", b"absolute"),
    ("empty.jpg", b""),
]


@pytest.mark.parametrize("hashed", [True, False])
@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_members_have_their_full_path_and_bytes(tmp_path, hashed, format):
    path = write_tar(tmp_path / "a.tar", ODD, format)
    entries = listed(path, hashed=hashed)
    assert [entry.image for entry in entries] == [f"{path}/{name}".replace("\udcff", "\\xff") for name, _ in ODD]
    assert contents(entries) == [content for _, content in ODD]
    assert [entry.sha256 for entry in entries] == [hashlib.sha256(content).digest() if hashed else None for _, content in ODD]


def test_what_is_no_image_is_left_out(tmp_path):
    path = tmp_path / "a.tar"
    write_tar(path, [("a.json", b"{}"), ("a.jpg", b"a"), ("._a.jpg", b"macOS"), ("a.cls", b"1")])
    with tarfile.open(path, "a") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE):
            header = tarfile.TarInfo("link.jpg")
            header.type, header.linkname = kind, "/etc/passwd"
            archive.addfile(header)
    assert [entry.image for entry in listed(str(path))] == [f"{path}/a.jpg"]


@pytest.mark.parametrize("hashed", [True, False])
def test_a_file_that_is_cut_at_any_place_keeps_its_whole_members(tmp_path, hashed):
    whole = write_tar(tmp_path / "a.tar", [(f"{number}.jpg", bytes([number]) * 700) for number in range(3)])
    data = (tmp_path / "a.tar").read_bytes()
    ends = [entry.offset + entry.size for entry in listed(whole)]
    for size in range(600, ends[-1] + 512, 97):
        cut = tmp_path / "cut.tar"
        cut.write_bytes(data[:size])
        entries = listed(str(cut), hashed=hashed)
        complete = sum(end <= size for end in ends)
        assert [entry.problem is None for entry in entries] == [True] * complete + [False], size
        assert [isinstance(content, ImageReadError) for content in contents(entries)] == [False] * complete + [True]


def test_headers_that_lie_are_refused(tmp_path):
    path = tmp_path / "a.tar"
    write_tar(path, [("a.jpg", b"a"), ("b.jpg", b"b")])
    data = bytearray(path.read_bytes())
    for value in (b"\xff" * 12, b"\x80" + b"\x7f" * 11, b"77777777777\0"):  # a negative size, and sizes far beyond the file
        data[1024 + 124 : 1024 + 136] = value
        checksum = sum(data[1024:1536]) - sum(data[1024 + 148 : 1024 + 156]) + 8 * 32
        data[1024 + 148 : 1024 + 156] = f"{checksum:06o}\0 ".encode()
        path.write_bytes(data)
        entries = listed(str(path))
        assert [entry.problem is None for entry in entries] == [True, False]


def test_a_large_extended_header_is_not_read_into_memory(tmp_path):
    path = tmp_path / "a.tar"
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, 4 << 30
    first = tarfile.TarInfo("a.jpg")
    first.size = 1
    with path.open("wb") as file:
        file.write(first.tobuf() + b"a".ljust(512, b"\0") + header.tobuf())
        file.truncate(5 << 30)
    entries = listed(str(path), hashed=False)
    assert [entry.problem is None for entry in entries] == [True, False]
    assert "header of" in entries[1].problem


@pytest.mark.parametrize("module", [gzip, bz2, lzma])
def test_a_compressed_tar_file_is_refused(tmp_path, module):
    (tmp_path / "a.tar").write_bytes(module.compress(bytes(1000)))
    with pytest.raises(DatasetError, match=r"a\.tar: .*decompress"):
        listed(str(tmp_path / "a.tar"))


@pytest.mark.parametrize("content", [b"", b"no tar" * 1000])
def test_what_is_no_tar_file_is_one_entry_with_a_problem(tmp_path, content):
    (tmp_path / "a.tar").write_bytes(content)
    (entry,) = listed(str(tmp_path / "a.tar"))
    assert (entry.image, entry.problem[:17]) == (str(tmp_path / "a.tar"), "is not a tar file")


def test_members_are_read_in_threads_without_pread(tmp_path, monkeypatch):
    """Windows has no `os.pread`: the position of the file is shared, so one thread reads at a time."""
    members = [(f"{number}.jpg", os.urandom(100_000)) for number in range(40)]
    path = write_tar(tmp_path / "a.tar", members)
    monkeypatch.delattr(os, "pread")
    assert list(read_entries(listed(path), Stores(), "image", readers=8)) == [content for _, content in members]
