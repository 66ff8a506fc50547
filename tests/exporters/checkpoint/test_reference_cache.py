"""Test the cache of reference runs: what is cached, what runs again, and that an unusable cache gives only a warning."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from exporters.checkpoint.reference_cache import MAX_FILES, cached_reference
from exporters.gate.gate import Reference
from exporters.gate.labelled_image import LabelledImage

IMAGES = [LabelledImage(Path("a.png"), ("a cat", "one cat")), LabelledImage(Path("b.png"), ("a dog",))]
REFERENCE = Reference(
    transformers="4.57.0", token_ids=((1, 5, 2), (1, 2)), margins_nat=((0.5, 0.25), (1.0,)), log_probabilities=((-3.5, -4.25), (-2.0,))
)


class Runs:
    """Returns the reference and counts its calls."""

    def __init__(self):
        self.count = 0

    def __call__(self):
        self.count += 1
        return REFERENCE


@pytest.fixture
def runs():
    return Runs()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "blip-toolkit" / "references"


def test_a_run_is_cached_by_its_content(folder, runs):
    assert [cached_reference(content, IMAGES, Reference, runs) for content in ("x", "x", "y", "x")] == [REFERENCE] * 4
    assert (runs.count, len(list(folder.iterdir()))) == (2, 2)


@pytest.mark.parametrize("damaged", [b"", b"{", b"[]", b'{"transformers": "4.57.6"}', b"[" * 100_000, b"\xff\xfe"], ids=range(6))
def test_a_damaged_file_is_replaced(folder, runs, damaged):
    cached_reference("x", IMAGES, Reference, runs)
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    file.write_bytes(damaged)
    assert cached_reference("x", IMAGES, Reference, runs) == REFERENCE
    assert (runs.count, file.read_bytes()) == (2, whole)


def test_a_file_of_other_images_is_replaced(folder, runs):
    cached_reference("x", IMAGES, Reference, runs)
    for others in (IMAGES[:1], [IMAGES[0], replace(IMAGES[1], texts=("a dog", "two"))]):
        cached_reference("x", others, Reference, runs)
    assert runs.count == 3


def test_the_least_recently_used_runs_are_removed(folder, runs):
    files = {}
    for number in range(MAX_FILES):
        cached_reference(number, IMAGES, Reference, runs)
        (files[number],) = set(folder.iterdir()) - set(files.values())
        os.utime(files[number], (1000 + number, 1000 + number))
    cached_reference(0, IMAGES, Reference, runs)  # a use makes it the newest
    cached_reference("one more", IMAGES, Reference, runs)
    left = set(folder.iterdir())
    assert [number for number, file in files.items() if file not in left] == [1]
    assert (len(left), runs.count) == (MAX_FILES, MAX_FILES + 1)


def test_a_cache_that_cannot_be_written_gives_a_warning(tmp_path, monkeypatch, runs, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert [cached_reference("x", IMAGES, Reference, runs) for _ in range(2)] == [REFERENCE] * 2
    assert runs.count == 2
    assert [(record.levelname, str(tmp_path / "file") in record.getMessage()) for record in caplog.records] == [("WARNING", True)] * 2


def test_without_a_home_there_is_a_warning(monkeypatch, runs, caplog):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    assert cached_reference("x", IMAGES, Reference, runs) == REFERENCE
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_relative_cache_folder_is_ignored(tmp_path, monkeypatch, runs):
    """The XDG Base Directory Specification requires absolute paths."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    cached_reference("x", IMAGES, Reference, runs)
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
