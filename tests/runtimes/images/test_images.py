"""`read_image`: every kind of image by value, from every kind of source; `preprocess` by hand.

Oracles: the array that was encoded (lossless formats), Pillow's own `convert("RGB")` of the same bytes, sums done by hand (16 bits).
`preprocess` is compared with transformers in tests/parity/test_preprocess.py.
"""

import io
import os
import threading

import numpy as np
import pytest
from PIL import Image

from runtimes.artifact.manifest import ImageSpec
from runtimes.errors import ImageReadError
from runtimes.images.reading import preprocess, read_image
from tests.images import AVIF, BYTES, FILES, GREYS, GREYS_ROW, OTHER, PALETTE, RGB, as_pillow, encode, photo, pixels, tiff

LOSSLESS_RGB = ["png", "bmp", "webp lossless", "tiff", "tiff lzw", "tiff deflate", "ppm", "png animated", "webp animated"]


@pytest.mark.parametrize("kind", FILES)
def test_a_file_gives_what_pillow_gives(kind):
    np.testing.assert_array_equal(pixels(FILES[kind]), as_pillow(FILES[kind]))


@pytest.mark.parametrize("kind", LOSSLESS_RGB)
def test_a_lossless_file_gives_what_went_in(kind):
    np.testing.assert_array_equal(pixels(FILES[kind]), photo())


@pytest.mark.parametrize("kind", [kind for kind in FILES if kind.endswith((" L", " LA"))])
def test_greys_are_three_equal_channels(kind):
    image = pixels(FILES[kind])
    np.testing.assert_array_equal(image, image[:, :, :1].repeat(3, axis=2))


@pytest.mark.parametrize("kind", ["png RGBA", "bmp RGBA", "webp RGBA", "tiff RGBA"])
def test_alpha_is_dropped_not_blended(kind):
    np.testing.assert_array_equal(pixels(FILES[kind]), photo(channels=4)[:, :, :3])


@pytest.mark.parametrize(
    ("mode", "pixel", "expected"),
    [
        ("1", 1, (255, 255, 255)),
        ("L", 77, (77, 77, 77)),
        ("LA", (77, 0), (77, 77, 77)),
        ("RGB", (1, 2, 3), (1, 2, 3)),
        ("RGBA", (1, 2, 3, 0), (1, 2, 3)),
        ("RGBX", (1, 2, 3, 9), (1, 2, 3)),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
        ("CMYK", (0, 0, 0, 255), (0, 0, 0)),
        ("YCbCr", (90, 128, 128), (90, 90, 90)),
        ("HSV", (0, 255, 200), (200, 0, 0)),
        ("I;16", 0xAB12, (0xAB, 0xAB, 0xAB)),
        ("I;16B", 0xAB12, (0xAB, 0xAB, 0xAB)),
        ("I;16L", 0xAB12, (0xAB, 0xAB, 0xAB)),
        ("I;16N", 0xAB12, (0xAB, 0xAB, 0xAB)),
        ("I", 0xAB12, (0xAB, 0xAB, 0xAB)),
        ("I", 200, (200, 200, 200)),
        ("F", 0.5, (128, 128, 128)),
        ("F", 200.9, (200, 200, 200)),
    ],
)
def test_pillow_modes(mode, pixel, expected):
    image = Image.new(mode, (2, 1), pixel)
    assert pixels(image).tolist() == [[list(expected)] * 2]
    assert image.mode == mode  # the caller's image is not changed


def test_palette_images():
    image = Image.new("P", (2, 1))
    image.putpalette([9, 8, 7, 60, 50, 40])
    image.putpixel((1, 0), 1)
    assert pixels(image).tolist() == [[[9, 8, 7], [60, 50, 40]]]


@pytest.mark.parametrize(
    "source",
    [
        encode(Image.fromarray(GREYS_ROW), "PNG"),
        encode(Image.fromarray(GREYS_ROW), "TIFF"),
        encode(Image.fromarray(GREYS_ROW), "TIFF", compression="tiff_lzw"),
        tiff(12, 1, GREYS_ROW.tobytes(), bits=16),
        b"P5 12 1 65535\n" + GREYS_ROW.astype(">u2").tobytes(),
        b"P2 12 1 65535\n" + b" ".join(b"%d" % value for value in GREYS),
        Image.fromarray(GREYS_ROW),
        Image.fromarray(GREYS_ROW.astype(">u2")),
        Image.fromarray(GREYS_ROW.astype(np.int32)),
        encode(Image.fromarray(GREYS_ROW.astype(np.int32)), "TIFF"),
    ],
    ids=["png", "tiff", "tiff lzw", "tiff by hand", "pgm", "pgm plain", "I;16", "I;16B", "I", "tiff I"],
)
def test_16_bit_greys_are_scaled_not_clipped(source):
    image = pixels(source)
    assert image.shape == (1, 12, 3)
    assert image[0, :, 0].tolist() == BYTES
    np.testing.assert_array_equal(image, image[:, :, :1].repeat(3, axis=2))


def test_16_bit_colours_keep_their_upper_byte_as_greys_do():
    values = np.array(GREYS, np.uint16).reshape(1, 4, 3)
    data = tiff(4, 1, values.tobytes(), bits=16, samples=3)
    np.testing.assert_array_equal(pixels(data), (values >> 8).astype(np.uint8))


def test_12_bit_tiff_greys_use_their_own_range():
    packed = bytes([0x00, 0x00, 0xFF, 0x80, 0x0F, 0xFF])  # 0x000, 0x0FF; 0x800, 0xFFF
    assert pixels(tiff(4, 1, packed, bits=12))[0, :, 0].tolist() == [0x00, 0x0F, 0x80, 0xFF]


def test_pgm_of_any_depth_uses_its_own_range():
    values = [0, 1, 250, 500, 999, 1000]
    data = b"P5 6 1 1000\n" + np.array(values, ">u2").tobytes()
    assert pixels(data)[0, :, 0].tolist() == [round(value / 1000 * 65535) >> 8 for value in values]
    dark = b"P5 6 1 65535\n" + np.array([0, 1, 2, 100, 200, 255], ">u2").tobytes()
    assert not pixels(dark).any()


def test_float_greys():
    row = np.array([[0.0, 0.25, 0.5, 0.999, 1.0]], np.float32)
    assert pixels(Image.fromarray(row))[0, :, 0].tolist() == [0, 64, 128, 255, 255]
    assert pixels(b"Pf\n5 1\n-1.0\n" + row.tobytes())[0, :, 0].tolist() == [0, 64, 128, 255, 255]
    row = np.array([[0.0, 1.5, 200.9, 255.0]], np.float32)
    assert pixels(encode(Image.fromarray(row), "TIFF"))[0, :, 0].tolist() == [0, 1, 200, 255]


@pytest.mark.parametrize("values", [[-1, 5], [0, 65536], [-40000, 2**31 - 1]])
def test_integer_greys_out_of_range(values):
    with pytest.raises(ImageReadError, match=f"{values[0]} .*{values[1]}.* 65535"):
        read_image(Image.fromarray(np.array([values], np.int32)))


@pytest.mark.parametrize("values", [[-0.5, 1], [0, 255.5], [np.nan, 1], [0, np.inf]])
def test_float_greys_out_of_range(values):
    with pytest.raises(ImageReadError, match="255"):
        read_image(Image.fromarray(np.array([values], np.float32)))


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF", "MPO"] + ["AVIF"] * AVIF)
def test_the_first_of_several_frames(form):
    first = PALETTE if form == "GIF" else RGB
    options = {"lossless": True} if form == "WEBP" else {}
    several = encode(first, form, save_all=True, append_images=[OTHER, RGB], **options)
    assert getattr(Image.open(io.BytesIO(several)), "n_frames", 1) == 3
    if form in ("JPEG", "MPO", "AVIF"):
        np.testing.assert_array_equal(pixels(several), as_pillow(several))
        assert np.abs(pixels(several).astype(int) - photo()).mean() < 12 < np.abs(pixels(several).astype(int) - photo(seed=1)).mean()
    else:
        np.testing.assert_array_equal(pixels(several), np.asarray(first.convert("RGB")))


@pytest.mark.parametrize("kind", ["jpeg", "png", "gif", "webp", "tiff lzw", "tiff"])
def test_one_image_from_every_kind_of_source(kind, tmp_path):
    data = FILES[kind]
    path = tmp_path / "image.of-unknown-kind"
    path.write_bytes(data)
    expected = as_pillow(data)
    for source in (
        path,
        str(path),
        data,
        Image.open(path),
        Image.open(io.BytesIO(data)).convert("RGB"),
        expected,
        expected.copy(order="F"),
    ):
        np.testing.assert_array_equal(pixels(source), expected)


def test_an_image_through_a_pipe(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(FILES["png"],))
    writer.start()
    np.testing.assert_array_equal(pixels(pipe), photo())
    writer.join()


def lowest_free_descriptor():
    descriptor = os.open(os.devnull, os.O_RDONLY)
    os.close(descriptor)
    return descriptor


@pytest.mark.parametrize("kind", ["jpeg", "gif", "tiff", "tiff lzw", "webp animated", "jpeg pair"])
@pytest.mark.parametrize("share", [1, 0.7, 0.1, 0.01])
def test_a_file_is_closed(kind, share, tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(FILES[kind][: round(len(FILES[kind]) * share)])
    before = lowest_free_descriptor()
    kept = []
    try:
        kept.append(read_image(path))
    except ImageReadError as error:
        kept.append(error)
    assert lowest_free_descriptor() == before


def test_arrays():
    np.testing.assert_array_equal(pixels(photo()), photo())
    np.testing.assert_array_equal(pixels(photo(channels=4)), photo(channels=4)[:, :, :3])
    np.testing.assert_array_equal(pixels(photo(channels=1)), photo(channels=1)[:, :, None].repeat(3, axis=2))
    np.testing.assert_array_equal(pixels(photo()[::-1, ::-2]), photo()[::-1, ::-2])
    array = photo()
    image = read_image(array)
    array[:] = 0
    np.testing.assert_array_equal(np.asarray(image), photo())


@pytest.mark.parametrize(
    ("array", "given"),
    [
        (np.zeros((4, 5, 3), np.float32), "float32[4,5,3]"),
        (np.zeros((4, 5, 3), np.uint16), "uint16[4,5,3]"),
        (np.zeros((4, 5), np.int64), "int64[4,5]"),
        (np.zeros((4, 5), bool), "bool[4,5]"),
        (np.zeros((3, 4, 5), np.uint8), "uint8[3,4,5]"),
        (np.zeros((4, 5, 1), np.uint8), "uint8[4,5,1]"),
        (np.zeros((2, 4, 5, 3), np.uint8), "uint8[2,4,5,3]"),
        (np.zeros(5, np.uint8), "uint8[5]"),
        (np.uint8(3)[None][0:0], "uint8[0]"),
        (np.array(b"text"), "|S4[]"),
    ],
)
def test_arrays_that_are_not_images(array, given):
    with pytest.raises(ImageReadError) as caught:
        read_image(array)
    assert given in str(caught.value)
    assert "uint8 array of shape [H,W,3], [H,W,4] or [H,W]" in str(caught.value)


@pytest.mark.parametrize("shape", [(0, 5, 3), (5, 0, 3), (0, 0), (0, 0, 4)])
def test_images_without_pixels(shape):
    with pytest.raises(ImageReadError, match=f"{shape[1]}x{shape[0]}"):
        read_image(np.zeros(shape, np.uint8))
    with pytest.raises(ImageReadError, match="pixels"):
        read_image(Image.new("RGB", (shape[1], shape[0])))


@pytest.mark.parametrize("source", [None, 7, ["a.jpg"], io.BytesIO(FILES["png"]), bytearray(FILES["png"]), object()])
def test_other_types(source):
    with pytest.raises(ImageReadError, match=f"<{type(source).__name__}>: .*path, bytes"):
        read_image(source)


def test_an_rgb_image_is_returned_itself():
    image = Image.fromarray(photo())
    assert read_image(image) is image


SPEC = ImageSpec(height_px=4, width_px=6, resample="bicubic", mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0), rescale=1 / 255)


def test_preprocess_by_hand():
    result = preprocess(Image.new("RGB", (50, 20), (255, 0, 51)), SPEC)
    assert (result.shape, result.dtype, result.flags.c_contiguous) == ((3, 4, 6), np.float32, True)
    assert np.unique(result[0]).tolist() == [1.0]
    assert np.unique(result[1]).tolist() == [-1.0]
    assert np.unique(result[2]).tolist() == [np.float32(0.2)]


def test_preprocess_takes_other_modes():
    grey = Image.fromarray(photo(channels=1))
    np.testing.assert_array_equal(preprocess(grey, SPEC), preprocess(grey.convert("RGB"), SPEC))
    np.testing.assert_array_equal(preprocess(Image.fromarray(GREYS_ROW), SPEC), preprocess(read_image(Image.fromarray(GREYS_ROW)), SPEC))
