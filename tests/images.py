"""Images that tests make: every kind of file that is taken, and headers that claim what is not there."""

import io
import struct
import warnings
import zlib

import numpy as np
from PIL import Image, features

from runtimes.errors import ImageReadError
from runtimes.images.reading import read_image

AVIF = features.check("avif")
ORIENTATION = 0x0112

GREYS = [0, 1, 255, 256, 257, 511, 4095, 32767, 32768, 65279, 65280, 65535]  # 16 bits, and what is left of them in 8:
BYTES = [0, 0, 0, 1, 1, 1, 15, 127, 128, 254, 255, 255]
GREYS_ROW = np.array([GREYS], np.uint16)


def photo(height=23, width=31, channels=3, seed=0):
    """A smooth image with some noise: u8[H,W,C], or u8[H,W] for one channel."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 4), dtype=np.uint8)).resize((width, height), Image.Resampling.BILINEAR)
    noisy = np.asarray(coarse)[:, :, :channels].astype(int) + rng.integers(-6, 7, (height, width, channels))
    return noisy.clip(0, 255).astype(np.uint8).squeeze()


def encode(image, form, **options):
    file = io.BytesIO()
    if "append_images" in options:
        options["append_images"] = [other.copy() for other in options["append_images"]]
    image.copy().save(file, form, **options)  # copies: saving leaves settings behind in an image
    return file.getvalue()


def as_pillow(data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def in_mode(mode):
    image = Image.fromarray(photo(channels=4), "RGBA") if mode in ("RGBA", "LA") else Image.fromarray(photo())
    return image if image.mode == mode else image.convert(mode)


def exif(orientation):
    block = Image.Exif()
    block[0x010F] = "maker"
    block[ORIENTATION] = orientation
    return block


def png(width, height, body=b"\0" * 64):
    """A PNG (8-bit RGB) that claims any size."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


def tiff(width, height, content, entries=(), bits=8, samples=1):
    """A little-endian uncompressed TIFF of one strip; `entries` are (tag, type, count, value) added to its directory."""
    content += b"\0" * (len(content) % 2)
    where = 8 + len(content)
    own = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, samples, bits), (259, 3, 1, 1), (262, 3, 1, 2 if samples == 3 else 1)]
    own += [(273, 4, 1, 8), (277, 3, 1, samples), (278, 4, 1, height), (279, 4, 1, len(content))]
    if samples == 3:  # three shorts do not fit into an entry
        content += struct.pack("<HHH", bits, bits, bits)
        own[2] = (258, 3, 3, where)
        where += 6
    entries_by_tag = sorted([*own, *entries])
    directory = struct.pack("<H", len(entries_by_tag)) + b"".join(struct.pack("<HHII", *entry) for entry in entries_by_tag)
    return b"II*\0" + struct.pack("<I", where) + content + directory + b"\0" * 44


RGB = Image.fromarray(photo())
PALETTE = RGB.convert("P", palette=Image.Palette.ADAPTIVE, colors=40)
OTHER = Image.fromarray(photo(seed=1))
FILES = {
    "jpeg": encode(RGB, "JPEG", quality=90),
    "jpeg exif": encode(RGB, "JPEG", exif=exif(1)),
    "jpeg progressive": encode(RGB, "JPEG", progressive=True),
    "jpeg L": encode(in_mode("L"), "JPEG"),
    "jpeg CMYK": encode(in_mode("CMYK"), "JPEG"),
    "jpeg pair": encode(RGB, "MPO", save_all=True, append_images=[OTHER]),
    "png": encode(RGB, "PNG"),
    "png 1": encode(in_mode("1"), "PNG"),
    "png L": encode(in_mode("L"), "PNG"),
    "png LA": encode(in_mode("LA"), "PNG"),
    "png P": encode(PALETTE, "PNG"),
    "png P, a clear colour": encode(PALETTE, "PNG", transparency=3),
    "png P, many clear colours": encode(PALETTE, "PNG", transparency=bytes(range(0, 200, 5))),
    "png L, a clear grey": encode(in_mode("L"), "PNG", transparency=7),
    "png RGBA": encode(in_mode("RGBA"), "PNG"),
    "png animated": encode(RGB, "PNG", save_all=True, append_images=[OTHER]),
    "gif": encode(PALETTE, "GIF"),
    "gif 1": encode(in_mode("1"), "GIF"),
    "gif clear": encode(PALETTE, "GIF", transparency=3),
    "bmp": encode(RGB, "BMP"),
    "bmp 1": encode(in_mode("1"), "BMP"),
    "bmp L": encode(in_mode("L"), "BMP"),
    "bmp P": encode(PALETTE, "BMP"),
    "bmp RGBA": encode(in_mode("RGBA"), "BMP"),
    "webp": encode(RGB, "WEBP"),
    "webp lossless": encode(RGB, "WEBP", lossless=True),
    "webp RGBA": encode(in_mode("RGBA"), "WEBP", lossless=True, exact=True),
    "webp animated": encode(RGB, "WEBP", save_all=True, append_images=[OTHER], lossless=True),
    "tiff": encode(RGB, "TIFF"),
    "tiff 1": encode(in_mode("1"), "TIFF"),
    "tiff L": encode(in_mode("L"), "TIFF"),
    "tiff LA": encode(in_mode("LA"), "TIFF"),
    "tiff P": encode(PALETTE, "TIFF"),
    "tiff RGBA": encode(in_mode("RGBA"), "TIFF"),
    "tiff CMYK": encode(in_mode("CMYK"), "TIFF"),
    "tiff YCbCr": encode(in_mode("YCbCr"), "TIFF", compression="tiff_lzw"),
    "tiff LAB": encode(in_mode("LAB"), "TIFF"),
    "tiff lzw": encode(RGB, "TIFF", compression="tiff_lzw"),
    "tiff deflate": encode(RGB, "TIFF", compression="tiff_adobe_deflate"),
    "tiff jpeg": encode(RGB, "TIFF", compression="jpeg"),
    "ppm": encode(RGB, "PPM"),
    "ppm 1": encode(in_mode("1"), "PPM"),
    "ppm L": encode(in_mode("L"), "PPM"),
    "ppm plain": b"P3 # words\n3 2 255\n" + b" ".join(b"%d" % value for value in range(170, -10, -10)),
    "ppm maxval": b"P6 3 2 180\n" + bytes(range(0, 180, 10)),
}
if AVIF:
    FILES |= {
        "avif": encode(RGB, "AVIF"),
        "avif L": encode(in_mode("L"), "AVIF"),
        "avif RGBA": encode(in_mode("RGBA"), "AVIF"),
        "avif animated": encode(RGB, "AVIF", save_all=True, append_images=[OTHER]),
    }


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
