"""Test the calibration images: their number, size and licences, and that the gate and the benchmark do not use them."""

import hashlib
import re

import pytest
from PIL import Image

from tests.paths import ROOT

FOLDER = ROOT / "exporters" / "calibration"
IMAGES = sorted(FOLDER.glob("*.jpg"))
MAX_SIDE_PX = 640
FREE = re.compile(r"Public domain|\[(CC0-1\.0|CC-BY-[234]\.0)\]\(https://creativecommons\.org/[a-z0-9/.]+\)")


def digests(folder):
    return {hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.glob("*.jpg")}


def test_their_number_and_total_size():
    assert len(IMAGES) >= 24
    assert sum(file.stat().st_size for file in IMAGES) <= 2_000_000


def test_all_are_different_and_none_is_a_sample_image():
    assert len(digests(FOLDER)) == len(IMAGES)
    assert digests(FOLDER).isdisjoint(digests(ROOT / "toolkit" / "sample"))


@pytest.mark.parametrize("file", IMAGES, ids=lambda file: file.stem)
def test_each_is_rgb_without_metadata(file):
    with Image.open(file) as image:
        image.load()
        assert (image.format, image.mode, max(image.size) <= MAX_SIDE_PX) == ("JPEG", "RGB", True)
        assert not image.getexif()
        assert {"comment", "xmp", "icc_profile", "photoshop"}.isdisjoint(image.info)


def test_each_has_a_free_licence_and_a_source():
    text = (FOLDER / "LICENCES.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.strip("| ").split(" | ")] for line in text.splitlines() if line.startswith("| ") and ".jpg |" in line
    ]
    assert [row[0] for row in rows] == [file.name for file in IMAGES]
    for name, author, licence, origin, recorded, original, changes in rows:
        assert FREE.fullmatch(licence), name
        assert author
        assert "(Debian): usr/share/" in origin
        assert recorded
        assert original == "not named" or original.startswith("<https://")
        assert "resized" in changes
        assert ("CC-BY" in licence) == (f"- `{name}`: " in text), f"{name}: its licence requires attribution"
