"""Files, folders and globs as the images they name."""

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from runtimes.errors import DatasetError, RequestError
from tests.paths import ROOT
from toolkit.distribute.sources.files import list_folder
from toolkit.distribute.stores.local import LocalStore
from toolkit.image_paths import LEFT_OUT_SUFFIXES, MAX_PATH_BYTES, SUFFIXES, expand, in_folder, read_list

FILES = ("b.jpg", "a.PNG", "c.txt", "noend", "deep/d.webp", "deep/er/e.Jpeg", "deep/f.json", "g[1].jpg", "empty/x.md")


@contextlib.contextmanager
def ordinary_user():
    """Run as a user whom permissions bind, which is not root."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


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
        (["deep/**"], ["deep/d.webp", "deep/er/e.Jpeg", "deep/f.json"]),
        (["./d*/**/e*/**/*.*"], ["./deep/er/e.Jpeg"]),
        (["**/deep/**/*.webp"], ["deep/d.webp"]),
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


def test_a_glob_prefers_the_own_path_of_a_folder(here):
    """Names must not depend on the order in a directory."""
    (here / "a-link").symlink_to(here / "deep" / "er")
    assert expand(["**/*.Jpeg"]) == ["deep/er/e.Jpeg"]
    assert expand(["*/**/*.Jpeg"]) == ["deep/er/e.Jpeg"]
    assert expand(["a-link/**/*.Jpeg"]) == ["a-link/e.Jpeg"]


def test_a_glob_reads_folders_that_link_to_each_other_once(here):
    for number in range(3):  # each more link would double the paths, 40 levels deep
        (here / "deep" / f"link-{number}").symlink_to(here)
    assert expand(["**/*.webp"]) == ["deep/d.webp"]
    assert expand(["deep/**/*.webp"]) == ["deep/d.webp"]


def test_a_folder_is_read_sorted_and_with_what_is_in_it(here):
    names = ["a.PNG", "b.jpg", "deep/d.webp", "deep/er/e.Jpeg", "g[1].jpg"]
    assert in_folder(here) == [here / name for name in names]


def test_suffixes_are_those_that_can_be_read(here):
    from PIL import Image

    from runtimes.images.formats import ENDINGS
    from runtimes.images.reading import FORMATS

    Image.init()
    names = Image.registered_extensions()
    for name, endings in ENDINGS.items():
        assert {names.get(ending, name) for ending in endings} <= {
            name,
            *({"DIB"} if name == "BMP" else {"MPO"} if name == "JPEG" else set()),
        }
        usual = {ending for ending, registered in names.items() if registered == name}
        assert usual - {".jp2"} <= set(endings)
    assert set(FORMATS) == set(ENDINGS)
    assert not SUFFIXES & LEFT_OUT_SUFFIXES


def test_hidden_folders_are_left_out(here):
    for name in (".thumbs/a.jpg", ".git/b.png", ".Trash/deep/c.jpg", "deep/.cache/d.jpg", "deep/.e.jpg"):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).touch()
    assert in_folder(here / "deep") == [here / "deep/d.webp", here / "deep/er/e.Jpeg"]
    assert not [path for path in in_folder(here) if "/." in str(path.relative_to(here.parent))]
    assert in_folder(here / ".thumbs") == [here / ".thumbs/a.jpg"]  # named itself


def test_every_ending_of_a_readable_format_is_taken(tmp_path):
    names = sorted(f"image{ending}" for ending in (".jfif", ".JPE", ".jpeg", ".mpo", ".webp", ".tif", ".avif", ".HEIC", ".heif", ".apng"))
    for name in names:
        (tmp_path / name).touch()
    assert in_folder(tmp_path) == [tmp_path / name for name in names]


def test_image_files_that_are_left_out_are_counted(here, caplog):
    for name in ("a.jxl", "b.JXL", "deep/c.cr2", "deep/.hidden.jxl", "d.svg", "e.pdf"):
        (here / name).touch()
    assert expand(["deep"]) == ["deep/d.webp", "deep/er/e.Jpeg"]
    assert [record.getMessage() for record in caplog.records] == [
        "deep: 1 image files are left out, because their formats are not read: 1 .cr2"
    ]
    in_folder(here)
    assert "4 image files are left out, because their formats are not read: 1 .cr2, 2 .jxl, 1 .svg" in caplog.text


def test_linked_folders_are_read_once_and_loops_end(here, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (outside / "o.jpg").touch()
    (outside / "back").symlink_to(here)
    (here / "a-link").symlink_to(outside)
    (here / "b-link").symlink_to(outside)
    (here / "deep" / "loop").symlink_to(here)
    (here / "a-deep").symlink_to(here / "deep")
    (here / "dangling").symlink_to(here / "none")
    (here / "linked.jpg").symlink_to(here / "b.jpg")
    names = ["a-link/o.jpg", "a.PNG", "b.jpg", "deep/d.webp", "deep/er/e.Jpeg", "g[1].jpg", "linked.jpg"]
    assert in_folder(here) == [here / name for name in names]


@pytest.mark.parametrize("name", ["x" * 300 + ".jpg", "y" * 5000, "a\0b.jpg"])
def test_a_name_that_the_system_refuses_becomes_an_error_row(here, name):
    assert expand(["b.jpg", name]) == ["b.jpg", name]


def test_a_glob_that_is_too_long_matches_nothing(here):
    with pytest.raises(RequestError, match="no images here"):
        expand(["z" * 300 + "*"])


def test_a_folder_that_may_not_be_read_becomes_an_error_row(here):
    here.chmod(0o755)
    (here / "closed").mkdir()
    (here / "closed" / "x.jpg").touch()
    (here / "closed").chmod(0)
    with ordinary_user():
        images = in_folder(Path())
        assert expand(["closed/x.jpg"]) == ["closed/x.jpg"]
    assert images == [Path(name) for name in ("a.PNG", "b.jpg", "closed", "deep/d.webp", "deep/er/e.Jpeg", "g[1].jpg")]


def test_what_cannot_be_examined_is_not_left_out(here):
    """An image that is silently missing in the output is worse than an error row."""
    here.chmod(0o755)
    (here / "closed").mkdir()
    (here / "closed" / "x.jpg").touch()
    (here / "link.jpg").symlink_to("closed/x.jpg")
    (here / "nowhere.jpg").symlink_to("nothing.jpg")
    (here / "closed").chmod(0)
    with ordinary_user():
        images = in_folder(Path())
        matches = expand(["*.jpg"])
        stored = LocalStore().matches("*.jpg")
        for folder in ("closed", "closed/inner"):
            with pytest.raises(RequestError, match=f"^{folder}: cannot be listed: Permission denied"):
                expand([folder])
        with pytest.raises(DatasetError, match="cannot be listed"):
            list(list_folder("closed", LocalStore()))
    assert {Path("link.jpg"), Path("closed")} <= set(images)
    assert Path("nowhere.jpg") in images
    assert "link.jpg" in matches
    assert stored == matches


@pytest.mark.parametrize(
    ("content", "paths"),
    [
        (b"a.jpg\nb c.jpg\n", ["a.jpg", "b c.jpg"]),
        (b"a.jpg\n\nb.jpg", ["a.jpg", "b.jpg"]),
        (b"a.jpg\r\nb.jpg\r\n", ["a.jpg", "b.jpg"]),
        (b"a.jpg\na.jpg\n", ["a.jpg", "a.jpg"]),
        (b"\xef\xbb\xbfa.jpg\nb.jpg\n", ["a.jpg", "b.jpg"]),
        (b"line\nbreak.jpg\0b.jpg\0", ["line\nbreak.jpg", "b.jpg"]),
        (b"only.jpg\0", ["only.jpg"]),
        (b"*.jpg\n-\n", ["*.jpg", "-"]),
        ("日本.jpg\n".encode() + b"caf\xe9.jpg\n", ["日本.jpg", os.fsdecode(b"caf\xe9.jpg")]),
        (b"a" * 4000 + b"\n" + b"x/" * 100_000 + b"\n", None),
        (b"".join(b"%d.jpg\n" % number for number in range(30_000)), [f"{number}.jpg" for number in range(30_000)]),
        (b"", []),
        (b"\n \n", []),
    ],
    ids=[
        "lines",
        "an empty line",
        "Windows",
        "twice",
        "a byte-order mark",
        "NUL",
        "one NUL",
        "taken as it is",
        "bytes",
        "no list",
        "blocks",
        "empty",
        "blank",
    ],
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
