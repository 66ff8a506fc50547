"""Files, folders and globs as the images they name."""

import os
import re
import subprocess
import sys

import pytest

from runtimes.errors import RequestError
from tests.paths import ROOT
from toolkit.image_paths import MAX_PATH_BYTES, SUFFIXES, expand, in_folder, read_list

FILES = ("b.jpg", "a.PNG", "c.txt", "noend", "deep/d.webp", "deep/er/e.Jpeg", "deep/f.json", "g[1].jpg", "empty/x.md")


@pytest.fixture
def here(tmp_path, monkeypatch):
    for name in FILES:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (tmp_path / "folder.jpg").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("names", "paths"),
    [
        (["b.jpg"], ["b.jpg"]),
        (["c.txt", "noend"], ["c.txt", "noend"]),  # named outright: whatever it is called
        (["none.jpg"], ["none.jpg"]),  # becomes an error row
        (["."], ["a.PNG", "b.jpg", "deep/d.webp", "deep/er/e.Jpeg", "g[1].jpg"]),
        (["deep"], ["deep/d.webp", "deep/er/e.Jpeg"]),
        (["deep/"], ["deep/d.webp", "deep/er/e.Jpeg"]),
        (["*.jpg"], ["b.jpg", "g[1].jpg"]),  # a folder called folder.jpg is no image
        (["*"], ["a.PNG", "b.jpg", "c.txt", "g[1].jpg", "noend"]),  # a glob that matches other files was meant to
        (["deep/*"], ["deep/d.webp", "deep/f.json"]),
        (["**/*.[jJ]peg"], ["deep/er/e.Jpeg"]),
        (["g[1].jpg"], ["g[1].jpg"]),  # is there: no glob
        (["g[0-9].jpg", "b.jp?"], ["b.jpg"]),
        (["b.jpg", "a.PNG", "b.jpg"], ["b.jpg", "a.PNG"]),  # each once, where it comes first
        (["deep/er", "*.jpg", "deep"], ["deep/er/e.Jpeg", "b.jpg", "g[1].jpg", "deep/d.webp"]),
    ],
    ids=str,
)
def test_names_are_expanded_to_paths(here, names, paths):
    if names == ["g[0-9].jpg", "b.jp?"]:
        with pytest.raises(RequestError, match=r"^g\[0-9\]\.jpg: "):
            expand(names)
        names = names[1:]
    assert expand(names) == paths


@pytest.mark.parametrize("name", ["empty", "folder.jpg", "*.gif", "none/*", "?"])
def test_a_folder_or_glob_without_images_is_an_error(here, name):
    with pytest.raises(RequestError, match=f"^{re.escape(name)}: "):
        expand(["b.jpg", name])


def test_absolute_globs(here):
    assert expand([f"{here}/deep/**/*.*"]) == [f"{here}/deep/d.webp", f"{here}/deep/er/e.Jpeg", f"{here}/deep/f.json"]


def test_a_folder_is_read_sorted_and_with_what_is_in_it(here):
    names = ["a.PNG", "b.jpg", "deep/d.webp", "deep/er/e.Jpeg", "g[1].jpg"]
    assert in_folder(here) == [here / name for name in names]


def test_suffixes_are_those_that_can_be_read(here):
    from PIL import Image

    from runtimes.images.reading import FORMATS

    Image.init()
    assert {Image.registered_extensions()[suffix] for suffix in SUFFIXES} == set(FORMATS)


@pytest.mark.parametrize(
    ("content", "paths"),
    [
        (b"a.jpg\nb c.jpg\n", ["a.jpg", "b c.jpg"]),
        (b"a.jpg\n\nb.jpg", ["a.jpg", "b.jpg"]),
        (b"a.jpg\r\nb.jpg\r\n", ["a.jpg", "b.jpg"]),
        (b"a.jpg\na.jpg\n", ["a.jpg", "a.jpg"]),
        (b"line\nbreak.jpg\0b.jpg\0", ["line\nbreak.jpg", "b.jpg"]),
        (b"only.jpg\0", ["only.jpg"]),
        (b"*.jpg\n-\n", ["*.jpg", "-"]),
        ("日本.jpg\n".encode() + b"caf\xe9.jpg\n", ["日本.jpg", os.fsdecode(b"caf\xe9.jpg")]),
        (b"a" * 4000 + b"\n" + b"x/" * 100_000 + b"\n", None),
        (b"".join(b"%d.jpg\n" % number for number in range(30_000)), [f"{number}.jpg" for number in range(30_000)]),
        (b"", []),
        (b"\n \n", []),
    ],
    ids=["lines", "an empty line", "Windows", "twice", "NUL", "one NUL", "taken as it is", "bytes", "no list", "blocks", "empty", "blank"],
)
def test_a_list_of_paths(tmp_path, content, paths):
    (tmp_path / "list").write_bytes(content)
    if paths is None:
        with pytest.raises(RequestError, match="is not a list of paths"):
            list(read_list(str(tmp_path / "list")))
        assert len(content) > MAX_PATH_BYTES
    else:
        assert list(read_list(str(tmp_path / "list"))) == paths


def test_a_list_that_is_not_there(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(RequestError, match=f"^{re.escape(str(path))}: cannot be read: "):
            list(read_list(str(path)))


def test_a_list_is_read_while_it_is_written():
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom toolkit.image_paths import read_list\n"
    script += "for path in read_list('-'): print(path, flush=True)"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        for name in (b"a.jpg\n", b"b.jpg\n"):
            process.stdin.write(name)
            assert process.stdout.readline() == name
        process.stdin.close()
        assert process.stdout.read() == b""
