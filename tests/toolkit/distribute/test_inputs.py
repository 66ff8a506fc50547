"""Inputs of every kind are listed in order, and their bytes are read."""

import hashlib
import io
import json
import os
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from runtimes.errors import DatasetError, ImageReadError
from toolkit.distribute.reading import read_entries
from toolkit.distribute.sources.inputs import Inputs, list_inputs
from toolkit.distribute.stores.stores import Stores

STORES = Stores()


def listed(*names, **options):
    return list(list_inputs(Inputs(names=tuple(map(str, names)), **options), STORES))


def contents(entries, column="image"):
    return list(read_entries(entries, STORES, column, readers=2))


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    for name in ("photos/b.jpg", "photos/a.png", "photos/deep/c.webp", "photos/notes.txt"):
        (tmp_path / name).write_text(name)
    return tmp_path


PHOTOS = ["photos/a.png", "photos/b.jpg", "photos/deep/c.webp"]


@pytest.mark.parametrize("hashed", [True, False])
def test_a_folder_a_pattern_and_a_file(here, hashed):
    entries = listed("photos", "photos/*.jpg", "photos/a.png", hashed=hashed)
    assert [entry.image for entry in entries] == [*PHOTOS, "photos/b.jpg", "photos/a.png"]
    assert contents(entries) == [entry.image.encode() for entry in entries]
    assert {entry.sha256 for entry in entries} == ({hashlib.sha256(name.encode()).digest() for name in PHOTOS} if hashed else {None})


def test_a_name_that_is_not_utf_8(here):
    name = os.fsdecode(b"photos/\xff.jpg")
    with open(name, "w") as file:  # noqa: PTH123
        file.write("bytes")
    entries = listed("photos")
    assert entries[-1].image == "photos/\\xff.jpg"
    assert contents(entries)[-1] == b"bytes"


def test_a_list_of_paths_may_name_what_is_missing(here):
    (here / "list").write_text("photos/b.jpg\nnone.jpg\n")
    good, missing = contents(listed(from_file="list"))
    assert good == b"photos/b.jpg"
    assert isinstance(missing, ImageReadError)


def test_a_pipe_in_a_list_is_refused_without_waiting(here):
    os.mkfifo(here / "pipe.jpg")
    (here / "list").write_text("pipe.jpg\n")
    (pipe,) = contents(listed(from_file="list", hashed=False))
    assert isinstance(pipe, ImageReadError)


@pytest.mark.parametrize("field", ["file_name", "file"])
def test_a_captions_file(here, field):
    (here / "photos" / "captions.json").write_text(json.dumps({"images": [{field: "b.jpg", "id": 1}, {field: "a.png"}]}))
    assert [entry.image for entry in listed("photos/captions.json")] == ["photos/b.jpg", "photos/a.png"]
    (here / "captions.json").write_text(json.dumps({"images": [{field: "deep/c.webp"}]}))
    assert contents(listed("captions.json", images="photos")) == [b"photos/deep/c.webp"]


@pytest.mark.parametrize("content", ["[]", "{", '{"images": [{}]}', '{"images": [{"file": 3}]}', '{"images": []}', "[" * 100_000])
def test_what_is_no_captions_file(here, content):
    (here / "captions.json").write_text(content)
    with pytest.raises(DatasetError, match=r"captions\.json"):
        listed("captions.json")


def write_parquet(path, column, kind, row_group_size=3):
    pq.write_table(pa.table({"id": range(len(column)), "image": pa.array(column, kind)}), path, row_group_size=row_group_size)


IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.mark.parametrize("hashed", [True, False])
@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), IMAGE])
def test_a_parquet_file_with_bytes(here, kind, hashed):
    cells = [f"image {number}".encode() for number in range(50)]
    write_parquet("a.parquet", [{"bytes": cell, "path": None} if kind == IMAGE else cell for cell in cells], kind, row_group_size=20)
    entries = listed("a.parquet", hashed=hashed)
    assert [entry.image for entry in entries] == [f"a.parquet#{row}" for row in range(50)]
    assert contents(entries) == cells
    assert contents(entries[25:44:3]) == cells[25:44:3]


@pytest.mark.parametrize("kind", [pa.string(), IMAGE])
def test_a_parquet_file_with_paths_beside_it(here, kind):
    write_parquet("photos/a.parquet", [name if kind != IMAGE else {"bytes": None, "path": name} for name in ("b.jpg", "deep/c.webp")], kind)
    entries = listed("photos/a.parquet")
    assert [entry.image for entry in entries] == ["photos/b.jpg", "photos/deep/c.webp"]
    assert contents(entries) == [b"photos/b.jpg", b"photos/deep/c.webp"]
    assert all(entry.sha256 for entry in entries)


def test_empty_cells_are_error_rows(here):
    write_parquet("a.parquet", [b"one", None, b""], pa.binary())
    for hashed in (True, False):
        first, *others = contents(listed("a.parquet", hashed=hashed))
        assert first == b"one"
        assert [content == b"" or isinstance(content, ImageReadError) for content in others] == [True, True]


def test_an_empty_path_is_an_error_row(here):
    write_parquet("a.parquet", ["photos/a.png", "", None], pa.string())
    first, *others = contents(listed("a.parquet"))
    assert first == b"photos/a.png"
    assert [type(content) for content in others] == [ImageReadError, ImageReadError]


@pytest.mark.parametrize("name", ["a.tar.gz", "a.TGZ", "a.tar.zst", "a.zip"])
def test_a_compressed_archive_is_refused(here, name):
    (here / name).write_bytes(b"x")
    with pytest.raises(DatasetError, match="decompress"):
        listed(name)
    assert [entry.image for entry in listed("a.*")] == [name], "what a pattern matches is an error row"


def test_a_column_that_is_not_there_and_one_of_another_type(here):
    write_parquet("a.parquet", [b"one"], pa.binary())
    with pytest.raises(DatasetError, match="id, image") as missing:
        listed("a.parquet", column="photo")
    assert "--column" in str(missing.value)
    with pytest.raises(DatasetError, match="int64"):
        listed("a.parquet", column="id")


def test_a_damaged_parquet_file(here):
    write_parquet("a.parquet", [bytes([number]) * 5000 for number in range(40)], pa.binary(), row_group_size=10)
    data = bytearray((here / "a.parquet").read_bytes())
    for cut in (b"", bytes(data[:-10]), b"PAR1" + b"x" * 100 + b"PAR1"):
        (here / "b.parquet").write_bytes(cut)
        with pytest.raises(DatasetError, match=r"b\.parquet"):
            listed("b.parquet")
    entries = listed("a.parquet", hashed=False)
    data[len(data) // 2 : len(data) // 2 + 400] = b"\xff" * 400
    (here / "a.parquet").write_bytes(data)
    read = contents(entries)
    assert len(read) == 40
    assert isinstance(read[0], bytes)


@pytest.mark.parametrize("name", ["none", "none.tar", "none.parquet", "none/*.jpg", "photos/deep/*.tar"])
def test_an_input_that_is_missing(here, name):
    with pytest.raises(DatasetError) as error:
        listed(name)
    assert name in str(error.value)


def test_a_folder_without_images_names_the_remedy(here):
    (here / "shards").mkdir()
    with tarfile.open(here / "shards" / "0.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("a.jpg"), io.BytesIO())
    with pytest.raises(DatasetError, match=r"\*\.tar"):
        listed("shards")
