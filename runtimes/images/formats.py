"""The image formats that are read, the endings of their files, and files whose metadata Pillow refuses.

Pillow raises an error for an image whose text, colour profile or EXIF block is damaged or larger than its limits. The pixels of such an
image are intact, so `without_metadata` removes these parts.
"""

import struct
from typing import Final

ENDINGS: Final = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo"),
    "PNG": (".png", ".apng"),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "AVIF": (".avif", ".avifs"),
    "HEIF": (".heic", ".heif", ".hif", ".heics", ".heifs"),
}
"""Pillow's name of each format that is read, and the endings of its files. HEIF needs the package pillow-heif."""

UNREADABLE_ENDINGS: Final = {
    "JPEG XL": (".jxl",),
    "JPEG 2000": (".jp2", ".j2k", ".jpx"),
    "JPEG XR": (".jxr", ".wdp"),
    "drawings": (".svg", ".eps"),
    "editors": (".psd", ".xcf"),
    "textures and icons": (".ico", ".icns", ".tga", ".pcx", ".dds", ".qoi"),
    "high dynamic range": (".exr", ".hdr"),
    "raw data of cameras": (".dng", ".raw", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"),
}
"""Endings of image files that are not read, by kind."""

HEAD_BYTES: Final = 30
"""Length of the start of a file that `webp_size` and `is_heif` need."""
_PIXEL_CHUNKS: Final = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_WEBP_METADATA: Final = frozenset({b"ICCP", b"EXIF", b"XMP "})
_COLOUR_BYTES: Final = 14
"""Shortest APP0 (JFIF) or APP14 (Adobe) segment; they define the colours of a JPEG."""
_APP0, _APP1, _APP14, _APP15, _COMMENT, _SCAN = 0xE0, 0xE1, 0xEE, 0xEF, 0xFE, 0xDA


def is_heif(head: bytes) -> bool:
    """Return whether the first bytes of a file are those of a HEIC or HEIF image."""
    return head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def webp_size(head: bytes) -> tuple[int, int] | None:
    """Return width and height in pixels from the first `HEAD_BYTES` bytes of a WebP; None for other and damaged files."""
    if len(head) < HEAD_BYTES or head[:4] != b"RIFF" or head[8:12] != b"WEBP":
        return None
    kind = head[12:16]
    if kind == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        return int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF
    return None


def avif_size(head: bytes) -> tuple[int, int] | None:
    """Return width and height in pixels that the start of an AVIF or HEIF file declares for its largest image; None for other files."""
    if head[4:8] != b"ftyp":
        return None
    boxes = [head[at + 8 : at + 16] for at in range(len(head) - 15) if head.startswith(b"ispe", at)]
    sizes = [(int.from_bytes(box[:4], "big"), int.from_bytes(box[4:], "big")) for box in boxes]
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


def without_metadata(data: bytes, *, keep_exif: bool) -> bytes:
    """Return a PNG, JPEG or WebP file without text, colour profile, XMP and other parts that do not define pixels.

    Args:
        data: The whole file. Other formats are returned unchanged.
        keep_exif: Keep the EXIF block, which contains the orientation.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png(data, _PIXEL_CHUNKS | {b"eXIf"} if keep_exif else _PIXEL_CHUNKS)
    if data.startswith(b"\xff\xd8"):
        return _jpeg(data, keep_exif=keep_exif)
    if data[:4] == b"RIFF" and data[8:16] == b"WEBPVP8X":
        return _webp(data, _WEBP_METADATA - {b"EXIF"} if keep_exif else _WEBP_METADATA)
    return data


def _png(data: bytes, kept: frozenset[bytes]) -> bytes:
    parts, position = [data[:8]], 8
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if kind in kept:
            parts.append(data[position:end])
        position = end
    return b"".join(parts) + data[position:]


def _jpeg(data: bytes, *, keep_exif: bool) -> bytes:
    parts, position = [data[:2]], 2
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != _SCAN:
        marker, length = data[position + 1], struct.unpack_from(">H", data, position + 2)[0]
        segment = data[position : position + 2 + length]
        exif = keep_exif and marker == _APP1 and segment[4:8] == b"Exif"
        colours = marker in (_APP0, _APP14) and length >= _COLOUR_BYTES
        if exif or colours or not (_APP0 <= marker <= _APP15 or marker == _COMMENT):
            parts.append(segment)
        position += 2 + length
    return b"".join(parts) + data[position:]


def _webp(data: bytes, removed: frozenset[bytes]) -> bytes:
    parts, position = [data[8:12]], 12
    while position + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, position)
        end = position + 8 + length + length % 2
        if kind not in removed:
            parts.append(data[position:end])
        position = end
    body = b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body
