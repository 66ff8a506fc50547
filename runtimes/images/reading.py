"""Read an image as RGB from a path, bytes, a Pillow image or an array, and preprocess it to pixels.

Axes: H, W pixels of the given image; S side of the square that the checkpoint accepts (`ImageSpec.height_px`, `width_px`).

Images come from untrusted sources. Pillow does not document its exceptions, detects decompression bombs only from 179 million pixels, and
tries 40 formats. So this module accepts a list of formats, checks the size before any pixel is decoded, decodes the whole image (a
truncated file must not be captioned as a half grey image), and raises `ImageReadError` for every failure. EXIF data is used for the
orientation only, and a broken EXIF block is ignored.

`preprocess` returns the same bits as the slow BlipImageProcessor of transformers, with which the checkpoints were trained. Greys of 16 bits
and of type float differ on purpose: `convert("RGB")` clips nearly all of them to white.
"""

import contextlib
import io
import logging
import os
import threading
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Final, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from PIL import AvifImagePlugin, ExifTags, Image, ImageFile, ImageOps, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin  # noqa: F401

from runtimes.artifact.manifest import ImageSpec
from runtimes.errors import ImageReadError, RequestError

ImageInput: TypeAlias = str | os.PathLike[str] | bytes | Image.Image | NDArray[np.uint8]
"""A path, a file's bytes, a Pillow image, or u8[H,W,3] RGB, u8[H,W,4] RGBA (alpha is dropped) or u8[H,W] grey."""

Images: TypeAlias = ImageInput | Iterable[ImageInput]
"""One image or several."""

MAX_PIXELS: Final = 50_000_000
MAX_SIDE_PX: Final = 100_000  # resizing needs about 32 bytes per pixel of the longer side
MAX_PPM_PIXELS: Final = 4_000_000  # for PPM variants that Pillow decodes in Python, at about 2 s per million pixels
# The plugins of these formats are imported above; otherwise Pillow imports all 40.
FORMATS: Final = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF")

logging.getLogger("PIL").addHandler(logging.NullHandler())  # otherwise a program without logging prints Pillow's errors


class _UnfitError(ValueError):
    """A problem with an image whose message is complete: it names the remedy."""


class _QuietPillow:
    """Silence Pillow's warnings. Filters belong to the process: the first reading thread replaces them, the last one restores them."""

    def __init__(self) -> None:
        self._lock, self._readers, self._caught = threading.Lock(), 0, warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            self._readers += 1
            if self._readers == 1:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\b")

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._readers -= 1
            if self._readers == 0:
                self._caught.__exit__(None, None, None)


_quiet_pillow = _QuietPillow()


def is_image(images: Images) -> bool:
    """Return whether the argument is a single image."""
    return isinstance(images, (str, os.PathLike, bytes, Image.Image, np.ndarray))


def each_image(images: Images) -> Iterable[ImageInput]:
    """Return an iterable over a single image or several images.

    Raises:
        RequestError: The argument is neither an image nor iterable.
    """
    if is_image(images):
        return (cast("ImageInput", images),)
    if not isinstance(images, Iterable):
        raise RequestError(f"images must be an image (a path, bytes, a PIL image, an array) or several, not {type(images).__qualname__}")
    return cast("Iterable[ImageInput]", images)


def read_image(source: ImageInput, name: str | None = None, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a whole image and return it as RGB.

    For files and bytes, the first frame is returned, rotated by its EXIF orientation. Pillow images and arrays are not rotated, and an RGB
    image is returned itself, not as a copy. Alpha is dropped, not blended. Greys of 16 bits are scaled to 8 bits.

    Args:
        source: The image, see `ImageInput`.
        name: Name of the image in errors; None: its path or type.
        max_pixels: Largest H * W to decode. Pillow's own limit applies too.

    Raises:
        ImageReadError: The image is missing, damaged, too large, not an image, or of an unsupported kind.
    """
    try:
        with _quiet_pillow:
            if isinstance(source, (str, os.PathLike)):
                with Path(source).open("rb") as file:
                    return _decode(file if file.seekable() else io.BytesIO(file.read()), max_pixels)
            if isinstance(source, bytes):
                return _decode(io.BytesIO(source), max_pixels)
            if isinstance(source, Image.Image):
                _check_size(*source.size, max_pixels)
                return _to_rgb(source)
            return _to_rgb(_from_array(source, max_pixels))
    except Exception as error:  # Pillow promises no closed set: OSError, ValueError, SyntaxError, struct.error, MemoryError, ...
        raise ImageReadError(_printable_name(source, name), _problem(error)) from error


def preprocess(image: Image.Image, spec: ImageSpec) -> NDArray[np.float32]:
    """Resize an RGB image without cropping, rescale and normalize it.

    Args:
        image: Result of `read_image`. Other modes are converted to RGB.
        spec: Preprocessing of the checkpoint.

    Returns:
        Pixels f32[3,S,S], bit for bit those of the slow BlipImageProcessor of transformers.
    """
    resized = np.asarray(_to_rgb(image).resize((spec.width_px, spec.height_px), Image.Resampling[spec.resample.upper()]))
    # A u8 has 256 values, so each channel needs a table of 256 results, computed in the order and precision of transformers.
    rescaled = (np.arange(256, dtype=np.float64) * spec.rescale).astype(np.float32)
    pixels = np.empty((3, spec.height_px, spec.width_px), np.float32)
    for channel in range(3):
        table = (rescaled - np.float32(spec.mean[channel])) / np.float32(spec.std[channel])
        np.take(table, resized[:, :, channel], out=pixels[channel], mode="clip")  # mode "clip" avoids a copy; no index is out of range
    return pixels


def _decode(file: BinaryIO, max_pixels: int) -> Image.Image:
    """Return the first frame of a seekable file, rotated and as RGB. The size is checked before decoding."""
    if not file.read(1):
        raise _UnfitError("is empty; copy it again")
    image = _open(file)
    in_python = image.format == "PPM" and image.tile[0].codec_name != "raw"
    _check_size(*image.size, min(max_pixels, MAX_PPM_PIXELS) if in_python else max_pixels)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        with contextlib.suppress(Exception):  # fails on broken tags; the second call and load() then use the tags that this one read
            image.getexif()
        exif = image.getexif()
        for tag in set(exif) - {ExifTags.Base.Orientation}:
            del exif[tag]  # load() follows pointers in these tags, and fails if one is broken
        image.info.pop("xmp", None)  # likewise
    image.load()
    with contextlib.suppress(Exception):  # a broken EXIF block: the image is captioned without rotation
        ImageOps.exif_transpose(image, in_place=True)
    return _to_rgb(image)


def _open(file: BinaryIO) -> ImageFile.ImageFile:
    """Identify the format of a file and read its header."""
    try:
        return Image.open(file, formats=FORMATS)
    except (UnidentifiedImageError, ValueError):
        file.seek(0)
        head = file.read(4096)
        if head[4:8] != b"ftyp" or b"Exif" not in head:
            raise
        # libavif rejects an AVIF with a broken EXIF block: try again with that block renamed.
        return Image.open(io.BytesIO(head.replace(b"Exif", b"skip", 1) + file.read()), formats=FORMATS)


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise _UnfitError(f"has no pixels ({width}x{height}); save it again")
    if width * height > max_pixels or max(width, height) > MAX_SIDE_PX:
        raise _UnfitError(f"is too large: {width}x{height} pixels; at most {max_pixels:,} in all and {MAX_SIDE_PX:,} a side; scale it down")


def _from_array(array: object, max_pixels: int) -> Image.Image:
    accepted = "give a path, bytes, a Pillow image or a uint8 array of shape [H,W,3], [H,W,4] or [H,W]"
    if not isinstance(array, np.ndarray):
        raise _UnfitError(f"is of type {type(array).__qualname__}; {accepted}")
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise _UnfitError(f"is an array {array.dtype}[{','.join(map(str, array.shape))}]; {accepted}")
    _check_size(array.shape[1], array.shape[0], max_pixels)
    return Image.fromarray(array)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image to RGB. Greys of more than 8 bits are scaled first, which `convert` does not do."""
    image.load()
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16"):
        # Keep the upper byte, as Pillow does for 16-bit colours. Some TIFFs declare 12 bits.
        bits = image.tag_v2.get(258, (16,))[0] if isinstance(image, TiffImagePlugin.TiffImageFile) else 16
        image = Image.fromarray((np.asarray(image) >> (bits - 8)).astype(np.uint8))
    elif image.mode in ("I", "F"):
        low, high = cast("tuple[float, float]", image.getextrema())
        top = 65535 if image.mode == "I" else 255
        if not 0 <= low <= high <= top:
            raise _UnfitError(f"has grey values from {low} to {high}, outside 0 to {top}; save it with 8 bits")
        if image.mode == "F" and high <= 1:
            image = image.point(lambda value: value * 255.0 + 0.5).convert("L")
        elif image.mode == "I" and (high > 255 or image.format == "PPM"):  # Pillow scales every PPM of more than 8 bits to 16 bits
            image = image.point(lambda value: value / 256.0).convert("L")
    return image.convert("RGB")


def _printable_name(source: object, name: str | None) -> str:
    text = name if name is not None else str(source) if isinstance(source, (str, os.PathLike)) else f"<{type(source).__name__}>"
    return text if text and text.isprintable() else ascii(text)  # a line break in a file name must not split the error message


def _problem(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"is not an image that can be read ({', '.join(FORMATS)}), or its start is damaged; save it as one of these"
    if isinstance(error, Image.DecompressionBombError):
        return "is too large: more pixels than Pillow opens; scale it down"
    if isinstance(error, FileNotFoundError):
        return "no such file; check the path"
    reason = (isinstance(error, OSError) and error.strerror) or " ".join(str(error).split()) or type(error).__name__
    return reason if isinstance(error, _UnfitError) else f"cannot be read: {reason}; copy or save it again"
