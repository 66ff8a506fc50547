"""The images and texts that a draft table is made from."""

import logging

import numpy as np
import pytest
from PIL import Image

from exporters.drafts import sources
from exporters.drafts.sources import calibration_images, read_images, read_texts
from runtimes.errors import RequestError
from tests.paths import ROOT


def test_the_default_images_are_the_calibration_images():
    assert list(calibration_images()) == sorted((ROOT / "exporters" / "calibration").glob("*.jpg"))


def test_images_are_read_as_rgb(tmp_path):
    array = np.arange(10 * 20 * 3, dtype=np.uint8).reshape(10, 20, 3)
    Image.fromarray(array).save(tmp_path / "a.png")
    (image,) = read_images([tmp_path / "a.png"])
    np.testing.assert_array_equal(np.asarray(image), array)


def test_unreadable_images_are_left_out_with_one_warning(tmp_path, caplog):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"not an image")
    with caplog.at_level(logging.WARNING):
        assert len(list(read_images([tmp_path / "a.png", tmp_path / "b.png", tmp_path / "missing.png"]))) == 1
    assert [record.args[:2] for record in caplog.records] == [(2, 3)]


def test_texts_are_lines_without_empty_ones(tmp_path):
    (tmp_path / "captions.txt").write_text("a dog\r\n\n  two cats \nél", encoding="utf-8")
    assert read_texts(tmp_path / "captions.txt") == ("a dog", "two cats", "él")


@pytest.mark.parametrize("content", [b"", b" \n\n", b"\xff\xfe"])
def test_a_file_without_captions_is_refused(tmp_path, content):
    (tmp_path / "captions.txt").write_bytes(content)
    with pytest.raises(RequestError, match=r"captions\.txt: "):
        read_texts(tmp_path / "captions.txt")


def test_a_missing_or_large_file_is_refused(tmp_path, monkeypatch):
    with pytest.raises(RequestError, match="cannot be read"):
        read_texts(tmp_path / "missing.txt")
    monkeypatch.setattr(sources, "MAX_TEXT_BYTES", 3)
    (tmp_path / "captions.txt").write_text("a dog", encoding="utf-8")
    with pytest.raises(RequestError, match="MiB"):
        read_texts(tmp_path / "captions.txt")
