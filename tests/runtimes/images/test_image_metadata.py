"""Metadata never costs an image: damaged or oversized text, colour profiles, EXIF and XMP are ignored, and memory stays bounded."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from tests.images import AVIF, FILES, RGB, as_pillow, encode, exif, photo, pixels
from tests.paths import ROOT


def chunk(kind, content, *, checksum=None):
    return (
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content) if checksum is None else checksum)
    )


def with_chunk(data, inserted, *, before=b"IDAT"):
    """Return a PNG with a chunk inserted."""
    position = data.index(before) - 4
    return data[:position] + inserted + data[position:]


MIB = b"x" * (1 << 20)
BROKEN_CHUNKS = {
    "compressed text": chunk(b"zTXt", b"prompt\0\0" + zlib.compress(MIB + b"y")),
    "compressed international text": chunk(b"iTXt", b"workflow\0\1\0\0\0" + zlib.compress(MIB * 3)),
    "much text": chunk(b"tEXt", b"a\0" + MIB * 65),
    "colour profile": chunk(b"iCCP", b"name\0\0" + zlib.compress(MIB + b"y")),
    "colour profile of an unknown method": chunk(b"iCCP", b"name\0\7abc"),
    "colour profile without a name": chunk(b"iCCP", b"name"),
    "text of an unknown method": chunk(b"zTXt", b"a\0\7b"),
    "checksum": chunk(b"tEXt", b"a\0b", checksum=7),
    "resolution": chunk(b"pHYs", b"\0"),
    "gamma": chunk(b"gAMA", b""),
    "animation": chunk(b"acTL", b"\0"),
    "time": chunk(b"tIME", b"", checksum=0),
}


@pytest.mark.parametrize("name", BROKEN_CHUNKS)
@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
def test_no_chunk_costs_a_png(name, before):
    data = with_chunk(encode(RGB, "PNG", exif=exif(6)), BROKEN_CHUNKS[name], before=before)
    np.testing.assert_array_equal(pixels(data), np.rot90(photo(), -1))


def test_text_as_image_generators_write_it():
    info = PngInfo()
    info.add_text("prompt", "x" * 2_000_000, zip=True)
    info.add_itxt("workflow", "y" * 2_000_000, zip=True)
    np.testing.assert_array_equal(pixels(encode(RGB, "PNG", pnginfo=info)), photo())


def segment(marker, content):
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


BROKEN_SEGMENTS = {
    "JFIF": segment(0xE0, b"JFIF\0"),
    "EXIF": segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff"),
    "XMP": segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta" + b"\xff" * 40),
    "colour profile": segment(0xE2, b"ICC_PROFILE\0\1\2abc"),
    "colour profile without a number": segment(0xE2, b"ICC_PROFILE\0"),
    "index of several images": segment(0xE2, b"MPF\0II*\0\x08\0\0\0\1\0\xff\xff"),
    "Photoshop": segment(0xED, b"Photoshop 3.0\0008BIM\x03\xed\0\0\0\0\xff\xff"),
    "Photoshop resolution": segment(0xED, b"Photoshop 3.0\0008BIM\x03\xed\0\0\0\0\0\1\0"),
    "Adobe": segment(0xEE, b"Adobe\0"),
    "comment": segment(0xFE, b"\xff\0"),
}


@pytest.mark.parametrize("name", BROKEN_SEGMENTS)
def test_no_segment_costs_a_jpeg(name):
    data = encode(RGB, "JPEG")
    np.testing.assert_array_equal(pixels(data[:2] + BROKEN_SEGMENTS[name] + data[2:]), as_pillow(data))


FORMS = ["JPEG", "PNG", "WEBP", "TIFF"] + ["AVIF"] * AVIF


@pytest.mark.parametrize(
    ("form", "option"),
    [(form, option) for form in FORMS for option in ("icc_profile", "xmp", "exif") if option != "exif" or form in FORMS[:3]],
)
def test_damaged_metadata_of_every_format(form, option):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for block in (b"\xff" * 300, profile[:50], profile[:200] + b"\xff" * 200):
        data = encode(RGB, form, **{option: block})
        np.testing.assert_array_equal(pixels(data), as_pillow(encode(RGB, form)))


def test_a_damaged_image_stays_an_error_without_its_metadata():
    for data in (FILES["png"][:-60], encode(RGB, "JPEG", exif=exif(6))[:-300]):
        with pytest.raises(ValueError, match=r"truncated|cannot be read"):
            pixels(data)


@pytest.mark.slow
@pytest.mark.full
def test_text_that_expands_a_thousandfold_needs_no_memory(tmp_path):
    bomb = zlib.compress(b"\0" * (1 << 30), 9)
    path = tmp_path / "bomb.png"
    path.write_bytes(with_chunk(FILES["png"], chunk(b"zTXt", b"a\0\0" + bomb) + chunk(b"iCCP", b"a\0\0" + bomb)))
    program = """if True:
        import resource, sys
        from runtimes.images.reading import read_image
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        before = peak()
        assert read_image(sys.argv[1]).size == (31, 23)
        assert peak() - before < 40, peak() - before
    """
    done = subprocess.run([sys.executable, "-c", program, path], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_pillow_refuses_these_pngs():
    """Without the removal, at least these would be lost: the tests above would otherwise prove nothing."""
    refused = 0
    for inserted in BROKEN_CHUNKS.values():
        try:
            Image.open(io.BytesIO(with_chunk(FILES["png"], inserted))).load()
        except (OSError, ValueError, SyntaxError):
            refused += 1
    assert refused >= 8
