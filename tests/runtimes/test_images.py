"""`read_image`: every kind of picture by value, every kind of damage as one `ImageReadError`.

Oracles: the array that was encoded (lossless formats), Pillow's own `convert("RGB")` of the same bytes, sums done by hand (16 bits),
numpy's flips (orientations). `preprocess` is compared with transformers in tests/parity/test_preprocess.py.
"""

import io
import os
import random
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtimes.errors import ImageReadError, ToolkitError
from runtimes.images import MAX_PIXELS, MAX_PPM_PIXELS, MAX_SIDE_PX, preprocess, read_image
from runtimes.manifest import ImageSpec
from tests.pictures import AVIF, FILES, ORIENTATION, OTHER, PALETTE, RGB, as_pillow, encode, exif, photo, png, tiff

ROOT = Path(__file__).parents[2]


def pixels(source, **options):
    image = read_image(source, **options)
    assert image.mode == "RGB"
    return np.asarray(image)


def outcome(data):
    """Pixels, or None where reading ends in the one allowed error."""
    try:
        return pixels(data)
    except ImageReadError as error:
        message = str(error)
    assert message.startswith("<bytes>: ")
    assert "\n" not in message
    return None


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
    assert image.mode == mode  # the caller's own is left alone


def test_palette_images():
    image = Image.new("P", (2, 1))
    image.putpalette([9, 8, 7, 60, 50, 40])
    image.putpixel((1, 0), 1)
    assert pixels(image).tolist() == [[[9, 8, 7], [60, 50, 40]]]


GREYS = [0, 1, 255, 256, 257, 511, 4095, 32767, 32768, 65279, 65280, 65535]  # 16 bits, and what is left of them in 8:
BYTES = [0, 0, 0, 1, 1, 1, 15, 127, 128, 254, 255, 255]
GREYS_ROW = np.array([GREYS], np.uint16)


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
    with pytest.raises(ImageReadError, match=f"grey values from {values[0]} to {values[1]}, outside 0 to 65535"):
        read_image(Image.fromarray(np.array([values], np.int32)))


@pytest.mark.parametrize("values", [[-0.5, 1], [0, 255.5], [np.nan, 1], [0, np.inf]])
def test_float_greys_out_of_range(values):
    with pytest.raises(ImageReadError, match=r"grey values from .* to .*, outside 0 to 255"):
        read_image(Image.fromarray(np.array([values], np.float32)))


TURNS = {  # EXIF: which side of the picture the first row and the first column of the file are
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
def test_unknown_orientation_is_none(orientation):
    np.testing.assert_array_equal(pixels(encode(RGB, "PNG", exif=exif(orientation))), photo())


def test_a_pillow_image_is_not_turned():
    opened = Image.open(io.BytesIO(encode(RGB, "PNG", exif=exif(6))))
    np.testing.assert_array_equal(pixels(opened), photo())


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
def test_a_broken_exif_block_never_costs_the_picture(form, block):
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
        np.testing.assert_array_equal(pixels(broken), pixels(data))  # an AVIF says apart from its EXIF how it is turned


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
def test_one_picture_in_every_guise(kind, tmp_path):
    data = FILES[kind]
    path = tmp_path / "picture.of-unknown-kind"
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


def test_a_picture_through_a_pipe(tmp_path):
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
def test_arrays_that_are_no_picture(array, given):
    with pytest.raises(ImageReadError) as caught:
        read_image(array)
    assert given in str(caught.value)
    assert "uint8 array of shape [H,W,3], [H,W,4] or [H,W]" in str(caught.value)


@pytest.mark.parametrize("shape", [(0, 5, 3), (5, 0, 3), (0, 0), (0, 0, 4)])
def test_nothing_to_see(shape):
    with pytest.raises(ImageReadError, match=f"has no pixels \\({shape[1]}x{shape[0]}\\)"):
        read_image(np.zeros(shape, np.uint8))
    with pytest.raises(ImageReadError, match="has no pixels"):
        read_image(Image.new("RGB", (shape[1], shape[0])))


@pytest.mark.parametrize("source", [None, 7, ["a.jpg"], io.BytesIO(FILES["png"]), bytearray(FILES["png"]), object()])
def test_other_types(source):
    with pytest.raises(ImageReadError, match=f"<{type(source).__name__}>: is of type {type(source).__name__}; give a path, bytes"):
        read_image(source)


def test_the_same_image_comes_back():
    image = Image.fromarray(photo())
    assert read_image(image) is image


@pytest.mark.parametrize("kind", FILES)
def test_cut_off_anywhere_it_is_whole_or_an_error(kind):
    data, errors = FILES[kind], 0
    whole = as_pillow(data)
    for end in [*range(min(64, len(data))), *range(64, len(data), 11), *range(max(64, len(data) - 32), len(data))]:
        got = outcome(data[:end])
        errors += got is None
        assert got is None or (got.shape == whole.shape and (got == whole).all()), end
    assert errors > 30 or len(data) < 80


def test_a_cut_off_jpeg_is_never_half_a_picture(tmp_path):
    data = encode(Image.fromarray(photo(200, 300)), "JPEG", quality=90)
    path = tmp_path / "half.jpg"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageReadError, match=r"half\.jpg: cannot be read: image file is truncated"):
        read_image(path)


@pytest.mark.parametrize(
    "kind", ["jpeg", "jpeg exif", "jpeg pair", "png", "png P", "gif", "bmp", "webp", "tiff", "tiff lzw", "ppm plain"] + ["avif"] * AVIF
)
def test_damaged_anywhere_it_is_a_picture_or_an_error(kind):
    chance = random.Random(kind)
    for _ in range(150):
        damaged = bytearray(FILES[kind])
        for _ in range(chance.choice([1, 1, 2, 4, 16])):
            span = len(damaged) if chance.random() < 0.5 else min(200, len(damaged))
            damaged[chance.randrange(span)] = chance.choice([0, 255, chance.randrange(256)])
        outcome(bytes(damaged))


def test_an_image_opened_by_the_caller_may_be_damaged():
    opened = Image.open(io.BytesIO(FILES["jpeg"][:-200]))
    with pytest.raises(ImageReadError, match=r"<JpegImageFile>: cannot be read: image file is truncated"):
        read_image(opened)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (b"\n", "is not a picture that can be read (JPEG, PNG, "),
        (b"A text file is no picture.\n" * 50, "is not a picture that can be read (JPEG, PNG, "),
        (b"\0" * 4096, "is not a picture that can be read"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is not a picture that can be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not a picture that can be read"),
        (encode(RGB, "ICO"), "is not a picture that can be read"),
        (encode(RGB, "TGA"), "is not a picture that can be read"),
        (encode(RGB, "PCX"), "is not a picture that can be read"),
        (FILES["jpeg"][:20], "its start is damaged"),
    ],
    ids=["empty", "line", "text", "zeros", "svg", "eps", "ico", "tga", "pcx", "start only"],
)
def test_files_that_are_no_picture(content, problem, tmp_path):
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    for source, name in ((path, str(path)), (content, "<bytes>")):
        with pytest.raises(ImageReadError) as caught:
            read_image(source)
        assert str(caught.value).startswith(f"{name}: ")
        assert problem in str(caught.value)


def test_paths_that_are_no_file(tmp_path):
    with pytest.raises(ImageReadError, match=r"absent\.jpg: no such file; check the path$"):
        read_image(tmp_path / "absent.jpg")
    with pytest.raises(ImageReadError, match="Is a directory"):
        read_image(tmp_path)
    with pytest.raises(ImageReadError, match=r"^'': "):
        read_image("")
    with pytest.raises(ImageReadError, match="null"):
        read_image("a\0b.jpg")
    with pytest.raises(ImageReadError, match="no such file"):
        read_image("https://example.org/a.jpg")


def test_errors_are_one_line_that_names_the_picture(tmp_path):
    path = tmp_path / "two\nlines.jpg"
    path.write_bytes(b"x")
    with pytest.raises(ImageReadError) as caught:
        read_image(path)
    assert "two\\nlines.jpg" in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(ImageReadError, match=r"^picture 3: is empty; copy it again$") as caught:
        read_image(b"", name="picture 3")
    assert isinstance(caught.value, ToolkitError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("raised", "problem"),
    [
        (RuntimeError("two\n  lines"), "two lines"),
        (MemoryError(), "MemoryError"),
        (RecursionError("maximum recursion depth exceeded"), "maximum recursion depth exceeded"),
        (OSError(5, "Input/output error"), "Input/output error"),
        (Image.DecompressionBombError("x"), None),
    ],
)
def test_whatever_pillow_raises(raised, problem):
    class Broken(Image.Image):
        size = (1, 1)

        def load(self):
            raise raised

    with pytest.raises(ImageReadError) as caught:
        read_image(Broken())
    said = f"cannot be read: {problem}; copy or save it again" if problem else "is too large: more pixels than Pillow opens; scale it down"
    assert str(caught.value) == f"<Broken>: {said}"
    assert caught.value.__cause__ is raised


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit])
def test_whoever_wants_to_stop_is_not_held_up(raised):
    class Stopping(Image.Image):
        size = (1, 1)

        def load(self):
            raise raised

    before = list(warnings.filters)
    with pytest.raises(raised):
        read_image(Stopping())
    assert warnings.filters == before


def huge(form, width, height):
    """Headers that claim a size and hold next to nothing."""
    match form:
        case "png":
            return png(width, height)
        case "bmp":
            return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 2000, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0) + b"\0" * 100
        case "gif":
            return FILES["gif"][:6] + struct.pack("<HH", width, height) + FILES["gif"][10:]
        case "jpeg":
            start = FILES["jpeg"].index(b"\xff\xc0") + 5
            return FILES["jpeg"][:start] + struct.pack(">HH", height, width) + FILES["jpeg"][start + 4 :]
        case "webp":
            size = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
            return FILES["webp animated"][:24] + size + FILES["webp animated"][30:]
        case "tiff":
            return tiff(width, height, b"\0" * 90, samples=3)
        case "ppm":
            return b"P6 %d %d 255\n" % (width, height) + b"\0" * 90
        case "avif":
            start = FILES["avif"].index(b"ispe") + 8
            return FILES["avif"][:start] + struct.pack(">II", width, height) + FILES["avif"][start + 8 :]
    raise AssertionError(form)


# 99 channels, which Pillow also logs
SURPLUS = tiff(31, 23, photo().tobytes(), samples=3).replace(struct.pack("<HHII", 277, 3, 1, 3), struct.pack("<HHII", 277, 3, 1, 99))
HUGE = ["png", "bmp", "gif", "jpeg", "webp", "tiff", "ppm"] + ["avif"] * AVIF


@pytest.mark.parametrize("form", HUGE)
@pytest.mark.parametrize("size", [(8000, 8000), (11000, 11000), (16000, 16000)])  # below Pillow's warning, above it, above its error
def test_too_many_pixels(form, size):
    known = "is too large" if form != "avif" else "is too large|Failed to decode image"  # libavif compares with the size in the data
    with pytest.raises(ImageReadError, match=known):
        read_image(huge(form, *size))


def test_too_large_takes_no_memory(tmp_path):
    sizes = {"png": 100_000, "bmp": 100_000, "gif": 65_535, "jpeg": 65_500, "webp": 65_535, "tiff": 100_000, "ppm": 100_000, "avif": 65_535}
    for form in HUGE:
        for name, side in (("most", sizes[form]), ("some", 9000)):
            (tmp_path / f"{name}.{form}").write_bytes(huge(form, side, side))
    real = zlib.compress(b"\0" * (8000 * 8000 * 3 + 8000))  # 64 million pixels that are really there
    (tmp_path / "real.png").write_bytes(png(8000, 8000).replace(zlib.compress(b"\0" * 64), real))
    (tmp_path / "logged.tiff").write_bytes(SURPLUS)
    program = """if True:
        import pathlib, resource, sys
        from runtimes.errors import ImageReadError
        from runtimes.images import read_image
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        paths = sorted(pathlib.Path(sys.argv[1]).iterdir())
        before = peak()
        for path in paths:
            try:
                read_image(path)
            except ImageReadError as error:
                print(error, peak() - before)
                assert peak() - before < 40, f"{path}: took {peak() - before} MiB"
            else:
                raise AssertionError(path)
    """
    done = subprocess.run([sys.executable, "-c", program, tmp_path], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("\n") == 2 * len(HUGE) + 2
    assert done.stderr == ""  # nor does Pillow's own log reach a terminal


def test_limits_are_exact():
    assert read_image(FILES["png"], max_pixels=23 * 31).size == (31, 23)
    for source in (FILES["png"], RGB, photo(), Image.open(io.BytesIO(FILES["jpeg"]))):
        with pytest.raises(ImageReadError, match="31x23 pixels; at most 712 in all"):
            read_image(source, max_pixels=23 * 31 - 1)
    assert MAX_PIXELS == 50_000_000
    widest = np.broadcast_to(np.uint8(9), (1, MAX_SIDE_PX, 3))
    assert read_image(widest).size == (MAX_SIDE_PX, 1)
    with pytest.raises(ImageReadError, match="is too large"):
        read_image(np.broadcast_to(np.uint8(9), (1, MAX_SIDE_PX + 1, 3)))
    with pytest.raises(ImageReadError, match="is too large"):  # 30 GB, if it were copied first
        read_image(np.broadcast_to(np.uint8(9), (100_000, 100_000, 3)))


@pytest.mark.parametrize("start", [b"P3 2001 2000 255\n", b"P6 2001 2000 254\n", b"P5 2001 2000 1000\n", b"P1 2001 2000\n"])
def test_kinds_that_pillow_decodes_slowly_have_a_limit_of_their_own(start):
    with pytest.raises(ImageReadError, match=f"at most {MAX_PPM_PIXELS:,} in all"):
        read_image(start + b"1 " * 50)


def noisy_sources():
    """Pictures at which Pillow warns."""
    return [
        png(10_000, 10_000),
        FILES["png P, many clear colours"],
        encode(RGB, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff"),
        FILES["tiff"][:-3],
    ]


def test_pillow_does_warn_at_these():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for data in noisy_sources():
            try:
                image = Image.open(io.BytesIO(data))
                image.convert("RGB")
                image.getexif()
            except Exception as error:
                assert isinstance(error, (OSError, SyntaxError))  # noqa: PT017 — any other would be a fault of this test
    assert {warning.category for warning in caught} >= {Image.DecompressionBombWarning, UserWarning}


@pytest.mark.parametrize("action", ["always", "error"])
def test_no_warning_leaks(action, capfd):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter(action)
        before = list(warnings.filters)
        for data in noisy_sources():
            outcome(data)
        outcome(SURPLUS)
        assert warnings.filters == before
    assert caught == []
    assert capfd.readouterr() == ("", "")


def test_warnings_come_back_after_many_threads():
    before = list(warnings.filters)

    def work():
        for _ in range(40):
            for data in (FILES["png"], FILES["png P, many clear colours"], b"text"):
                outcome(data)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == before


def test_one_reader_leaving_does_not_wake_the_warnings_of_another(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        reader = threading.Thread(target=read_image, args=(pipe,))
        reader.start()
        with pipe.open("wb") as end:  # opens when the reader has: it is at work now
            outcome(FILES["png"])
            end.write(FILES["png P, many clear colours"])
        reader.join()
        assert warnings.filters == before
    assert caught == []


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
