"""Images that are too large are refused before memory is allocated; Pillow's warnings are hidden."""

import io
import os
import struct
import subprocess
import sys
import threading
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from runtimes.errors import ImageReadError, ImageTooLargeError
from runtimes.images.formats import webp_size
from runtimes.images.reading import MAX_PIXELS, MAX_PPM_PIXELS, MAX_SIDE_PX, read_image
from tests.images import AVIF, FILES, RGB, encode, outcome, photo, pixels, png, tiff
from tests.paths import ROOT


def huge(form, width, height):
    """Return a small file whose header declares a large image."""
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
    # libavif compares the header with the size in the data.
    known = "is too large" if form != "avif" else "is too large|Failed to decode image"
    with pytest.raises(ImageReadError, match=known):
        read_image(huge(form, *size))


@pytest.mark.slow
def test_an_image_that_is_too_large_needs_no_memory(tmp_path):
    sizes = {"png": 100_000, "bmp": 100_000, "gif": 65_535, "jpeg": 65_500, "webp": 65_535, "tiff": 100_000, "ppm": 100_000, "avif": 65_535}
    for form in HUGE:
        for name, side in (("most", sizes[form]), ("some", 9000)):
            (tmp_path / f"{name}.{form}").write_bytes(huge(form, side, side))
    real = zlib.compress(b"\0" * (8000 * 8000 * 3 + 8000))  # 64 million pixels that are in the file
    (tmp_path / "real.png").write_bytes(png(8000, 8000).replace(zlib.compress(b"\0" * 64), real))
    (tmp_path / "logged.tiff").write_bytes(SURPLUS)
    program = """if True:
        import pathlib, resource, sys
        from runtimes.errors import ImageReadError
        from runtimes.images.reading import read_image
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
    assert done.stderr == ""  # Pillow's log is not printed either


def test_a_refused_webp_is_not_allocated():
    """Pillow allocates 8 bytes per pixel when it opens a WebP, so opening this one would fail."""
    program = """if True:
        import resource, sys
        from runtimes.errors import ImageTooLargeError
        from runtimes.images.reading import read_image
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), used + (64 << 20)))
        try:
            read_image(sys.stdin.buffer.read())
        except ImageTooLargeError as error:
            print(error)
    """
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, input=huge("webp", 9000, 9000), capture_output=True, timeout=60, check=False)
    assert b"9000x9000" in done.stdout, done.stderr


def test_the_size_of_a_webp_is_read_from_its_header():
    for options in (
        {},
        {"lossless": True},
        {"exif": b"Exif\0\0II*\0"},
        {"save_all": True, "append_images": [Image.new("RGB", (301, 207))]},
    ):
        data = encode(Image.new("RGB", (301, 207)), "WEBP", **options)
        assert webp_size(data) == (301, 207)
        assert webp_size(data[:29]) is None
    assert {webp_size(FILES[name]) for name in FILES if "webp" not in name} == {None}


@pytest.mark.parametrize("side", [20_000] * AVIF)
def test_an_avif_above_the_limit_of_its_decoder_is_too_large(side):
    with pytest.raises(ImageTooLargeError, match="20000x20000"):
        read_image(huge("avif", side, side), max_pixels=side * side)


def test_limits_are_exact():
    assert read_image(FILES["png"], max_pixels=23 * 31).size == (31, 23)
    for source in (FILES["png"], RGB, photo(), Image.open(io.BytesIO(FILES["jpeg"]))):
        with pytest.raises(ImageReadError, match=r"31x23 .*712"):
            read_image(source, max_pixels=23 * 31 - 1)
    assert MAX_PIXELS == 50_000_000
    widest = np.broadcast_to(np.uint8(9), (1, MAX_SIDE_PX, 3))
    assert read_image(widest).size == (MAX_SIDE_PX, 1)
    with pytest.raises(ImageReadError, match="large"):
        read_image(np.broadcast_to(np.uint8(9), (1, MAX_SIDE_PX + 1, 3)))
    with pytest.raises(ImageReadError, match="large"):  # 30 GB, if it were copied first
        read_image(np.broadcast_to(np.uint8(9), (100_000, 100_000, 3)))


@pytest.mark.parametrize("start", [b"P3 2001 2000 255\n", b"P6 2001 2000 254\n", b"P5 2001 2000 1000\n", b"P1 2001 2000\n"])
def test_variants_that_pillow_decodes_in_python_have_a_lower_limit(start):
    with pytest.raises(ImageReadError, match=f"{MAX_PPM_PIXELS:,}"):
        read_image(start + b"1 " * 50)


LARGE = [*((form, 18_000, 10_000) for form in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "PPM")), ("WEBP", 16_000, 11_200)]


@pytest.mark.slow
@pytest.mark.parametrize(("form", "width", "height"), LARGE)
@pytest.mark.full
def test_max_pixels_is_honoured_above_pillows_own_limit(form, width, height):
    data, limit = encode(Image.new("L", (width, height), 128), form), Image.MAX_IMAGE_PIXELS
    assert width * height > 2 * limit
    with pytest.raises(ImageReadError, match="is too large"):
        read_image(data)
    assert read_image(data, max_pixels=width * height).size == (width, height)
    assert limit == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize(
    ("max_pixels", "size"), [(1_200_000, (1200, 1000)), (1_199_999, (600, 500)), (80_000, (300, 250)), (20_000, (150, 125))]
)
def test_a_large_jpeg_is_decoded_smaller_on_request(max_pixels, size):
    """The oracle is Pillow's own `draft`."""
    data = encode(Image.fromarray(photo(1000, 1200)), "JPEG", quality=90)
    reduced = pixels(data, max_pixels=max_pixels, reduce_large=True)
    oracle = Image.open(io.BytesIO(data))
    oracle.draft(None, size)
    assert oracle.size == size
    np.testing.assert_array_equal(reduced, np.asarray(oracle))
    if size != (1200, 1000):
        with pytest.raises(ImageReadError, match="is too large"):
            read_image(data, max_pixels=max_pixels)


def test_what_cannot_be_decoded_smaller_is_refused():
    image = Image.fromarray(photo(400, 600))
    for data in (encode(image, "PNG"), encode(image, "JPEG", progressive=True)):
        with pytest.raises(ImageReadError, match="is too large"):
            read_image(data, max_pixels=30_000, reduce_large=True)
    with pytest.raises(ImageReadError, match="is too large"):
        read_image(encode(image, "JPEG"), max_pixels=3_000, reduce_large=True)
    assert read_image(encode(image, "JPEG", progressive=True), max_pixels=60_000, reduce_large=True).size == (300, 200)


def noisy_sources():
    """Images for which Pillow emits warnings."""
    return [
        png(10_000, 10_000),
        FILES["png P, many clear colours"],
        encode(RGB, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff"),
        FILES["tiff"][:-3],
    ]


def test_pillow_warns_for_these_images():
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


def test_the_warning_filters_are_restored_after_many_threads():
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


def test_warnings_stay_hidden_while_another_thread_reads(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        reader = threading.Thread(target=read_image, args=(pipe,))
        reader.start()
        with pipe.open("wb") as end:  # open() returns when the reader has opened the pipe
            outcome(FILES["png"])
            end.write(FILES["png P, many clear colours"])
        reader.join()
        assert warnings.filters == before
    assert caught == []
