"""Identify the format of an image file and read its header, without Pillow's limit of pixels, which is a variable of the process."""

import contextlib
import io
import struct
from importlib import import_module
from typing import BinaryIO, Final

from PIL import (  # noqa: F401 - a plugin registers its format when it is imported
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from runtimes.images.formats import ENDINGS, avif_size, is_heif

# The plugins of these formats are imported above, that of HEIF on demand.
FORMATS: Final = tuple(ENDINGS)
MAX_AVIF_PIXELS: Final = 1 << 28  # the limit of libavif; that of libheif is higher


class UnfitError(ValueError):
    """A problem with an image whose message is complete: it names the remedy."""


class TooLargeError(UnfitError):
    """The image has more pixels than are decoded."""


class _ShortReads(io.BytesIO):
    """A file that returns at most 16 bytes per read, unless all are requested.

    Pillow 13 compares the size of a WebP with its own limit, a variable of the process, if the first read returns 30 bytes. Our limit
    replaces it.
    """

    def read(self, size: int | None = -1) -> bytes:
        """See `io.BytesIO.read`."""
        return super().read(size if size is None else min(size, 16))


def open_image(file: BinaryIO) -> ImageFile.ImageFile:
    """Identify the format of a file and read its header."""
    try:
        return _open_format(file)
    except UnfitError:
        raise
    except (UnidentifiedImageError, ValueError):
        file.seek(0)
        head = file.read(4096)
        if (size := avif_size(head)) and size[0] * size[1] > MAX_AVIF_PIXELS:
            raise TooLargeError(f"is too large: {size[0]}x{size[1]} pixels, more than its decoder reads; scale it down") from None
        if head[4:8] != b"ftyp" or b"Exif" not in head:
            raise
        # libavif rejects an AVIF with a broken EXIF block: try again with that block renamed.
        return _open_format(io.BytesIO(head.replace(b"Exif", b"skip", 1) + file.read()))


def _open_format(file: BinaryIO) -> ImageFile.ImageFile:
    """Do what `Image.open` does, without its limit of pixels, which is a variable of the process."""
    file.seek(0)
    head = file.read(16)
    for name in FORMATS:
        if name == "HEIF" and is_heif(head):
            _register_heif()
        factory, accept = Image.OPEN.get(name, (None, None))
        if factory and (accept is None or accept(head) is True):
            file.seek(0)
            with contextlib.suppress(SyntaxError, IndexError, TypeError, struct.error):  # the exceptions by which a plugin refuses a file
                return factory(_ShortReads(file.read()) if name == "WEBP" else file, "")
    raise UnidentifiedImageError


def _register_heif() -> None:
    try:
        import_module("pillow_heif").register_heif_opener()
    except ImportError as error:
        raise UnfitError("is a HEIC or HEIF image; to read it: pip install 'blip-toolkit[heif]'") from error
