"""EXIF: images are rotated by their orientation (expected values from numpy), and broken blocks are ignored."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.images import AVIF, BYTES, GREYS_ROW, ORIENTATION, RGB, as_pillow, encode, exif, in_mode, photo, pixels, tiff

TURNS = {  # EXIF: which side of the image the first row and the first column of the file are
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}
WITH_EXIF = [("JPEG", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"})]
WITH_EXIF += [("AVIF", {})] if AVIF else []


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize(("form", "options"), WITH_EXIF)
def test_exif_orientation(form, options, orientation):
    lying = as_pillow(encode(RGB, form, **options))
    np.testing.assert_array_equal(pixels(encode(RGB, form, exif=exif(orientation), **options)), TURNS[orientation](lying))


@pytest.mark.parametrize("orientation", TURNS)
def test_exif_orientation_of_16_bit_greys(orientation):
    data = encode(Image.fromarray(GREYS_ROW), "PNG", exif=exif(orientation))
    np.testing.assert_array_equal(pixels(data), TURNS[orientation](np.array([BYTES], np.uint8)[:, :, None].repeat(3, axis=2)))


@pytest.mark.parametrize("orientation", [0, 9, 255, 65535])
def test_an_unknown_orientation_is_ignored(orientation):
    np.testing.assert_array_equal(pixels(encode(RGB, "PNG", exif=exif(orientation))), photo())


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize(("form", "options"), WITH_EXIF)
def test_path_bytes_and_pillow_image_are_the_same_image(form, options, orientation, tmp_path):
    """The oracle is Pillow's own `exif_transpose`."""
    data = encode(RGB, form, exif=exif(orientation), **options)
    path = tmp_path / "image"
    path.write_bytes(data)
    opened, loaded = Image.open(path), Image.open(path)
    loaded.load()
    upright = ImageOps.exif_transpose(Image.open(path))
    expected = np.asarray(upright.convert("RGB"))
    for source in (path, data, opened, loaded, upright, Image.open(path).convert("RGB") if form != "TIFF" else opened):
        np.testing.assert_array_equal(pixels(source), expected)
    np.testing.assert_array_equal(np.asarray(loaded), np.asarray(Image.open(path)))  # the caller's image is not changed


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_follows_one_rule(mode, tmp_path):
    """Alpha is dropped in every form, as transformers' `convert("RGB")` does."""
    image = in_mode("RGBA").quantize(40) if mode == "P" else in_mode(mode)
    data = encode(image, "PNG")
    path = tmp_path / "clear.png"
    path.write_bytes(data)
    for source in (path, data, Image.open(path)):
        np.testing.assert_array_equal(pixels(source), as_pillow(data))
    if mode == "RGBA":
        np.testing.assert_array_equal(pixels(np.asarray(image)), as_pillow(data))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "block",
    [
        b"Exif\0\0not a TIFF header",
        b"\0" * 20,
        b"II*\0\x08\0\0\0\xff\xff",
        b"MM\0*\0\0\0\x08\0\1" + b"\xff" * 30,
        b"II*\0\xff\xff\xff\xff",
        b"II",
    ],
)
def test_a_broken_exif_block_is_ignored(form, block):
    options = {"lossless": True} if form == "WEBP" else {}
    np.testing.assert_array_equal(pixels(encode(RGB, form, exif=block, **options)), as_pillow(encode(RGB, form, **options)))


def test_any_damage_to_the_exif_of_a_jpeg_at_most_turns_it():
    data = encode(RGB, "JPEG", exif=exif(6))
    start, end = data.index(b"Exif") + 6, data.index(b"\xff\xdb")
    turned = [turn(as_pillow(encode(RGB, "JPEG"))) for turn in TURNS.values()]
    for position in range(start, end):
        for value in (0, 5, 255):
            got = pixels(data[:position] + bytes([value]) + data[position + 1 :])
            assert any(got.shape == known.shape and (got == known).all() for known in turned), (position, value)


@pytest.mark.parametrize("tag", [34665, 34853, 40965, 700], ids=["exif", "gps", "interop", "xmp"])
@pytest.mark.parametrize("kind", [1, 2, 3, 4, 5, 7, 9, 12])
@pytest.mark.parametrize("value", [0, 1, 8, 2200, 0xFFFFFFFF])
def test_broken_tags_never_cost_a_tiff(tag, kind, value):
    for count in (0, 1, 3, 1000):
        data = tiff(31, 23, photo().tobytes(), [(tag, kind, count, value)], samples=3)
        np.testing.assert_array_equal(pixels(data), photo())
        upright = tiff(31, 23, photo().tobytes(), [(tag, kind, count, value), (ORIENTATION, 3, 1, 6)], samples=3)
        np.testing.assert_array_equal(pixels(upright), TURNS[6](photo()))


def test_a_broken_exif_block_never_costs_an_avif():
    data = encode(RGB, "AVIF", exif=exif(6)) if AVIF else None
    if data:
        header = max(data.rfind(b"II*\0"), data.rfind(b"MM\0*"))
        broken = data[:header] + b"XXXX" + data[header + 4 :]
        np.testing.assert_array_equal(pixels(broken), pixels(data))  # an AVIF stores its rotation also outside of its EXIF data
