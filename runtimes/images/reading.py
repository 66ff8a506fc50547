"""Images in, pixels out: whatever holds an image becomes an RGB one, and that becomes what the vision tower takes.

Legend: H, W pixels of the image as given; S the side that the checkpoint takes (`ImageSpec.height_px`, `width_px`).

Why the fences: an image comes from anywhere, and Pillow promises no closed set of errors, sees a bomb only at 179 million pixels
and tries 40 formats. So the formats are listed, the size is checked before a pixel is decoded, the image is decoded in full (a
cut-off file must not be captioned as a half grey one), and whatever goes wrong is one `ImageReadError`. EXIF only says how to turn
the image: a broken block never costs it. `preprocess` gives the bits of transformers' slow BlipImageProcessor, with which the
checkpoints were trained; only 16-bit and float greys differ on purpose, as `convert("RGB")` clips nearly all of them to white.
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
MAX_SIDE_PX: Final = 100_000  # resizing takes memory by the longer side, about 32 bytes a pixel of it
MAX_PPM_PIXELS: Final = 4_000_000  # of the PPM kinds that Pillow decodes in Python, about 2 s per million
FORMATS: Final = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF")  # named plugins above: else Pillow imports all 40

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else its errors reach the terminal of a program that set up no logging


class _UnfitError(ValueError):
    """What is wrong with an image, in words that need no more explanation."""


class _QuietPillow:
    """Silences Pillow's warnings: the first thread that reads an image swaps the filters all share, the last one restores them."""

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
    """Return whether this is one image, and not several."""
    return isinstance(images, (str, os.PathLike, bytes, Image.Image, np.ndarray))


def each_image(images: Images) -> Iterable[ImageInput]:
    """Return an iterable of images, of one or of several.

    Raises:
        RequestError: It is neither.
    """
    if is_image(images):
        return (cast("ImageInput", images),)
    if not isinstance(images, Iterable):
        raise RequestError(f"images must be an image (a path, bytes, a PIL image, an array) or several, not {type(images).__qualname__}")
    return cast("Iterable[ImageInput]", images)


def read_image(source: ImageInput, name: str | None = None, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Reads an image in full, as RGB, upright.

    Files and bytes are turned as their EXIF says and give their first frame. Pillow images and arrays are taken as they are
    (an RGB image comes back itself, not a copy). Alpha is dropped, not blended; 16-bit greys are scaled to 8 bits.

    Args:
        source: The image, see `ImageInput`.
        name: What to call the image in an error; its path, or its type, if not given.
        max_pixels: Largest H * W that is decoded (Pillow's own limit holds too).

    Raises:
        ImageReadError: It is missing, not an image, damaged, too large or of a kind that is not taken.
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
        raise ImageReadError(_shown(source, name), _problem(error)) from error


def preprocess(image: Image.Image, spec: ImageSpec) -> NDArray[np.float32]:
    """Resizes an RGB image to the checkpoint's square (no cropping), rescales and normalizes it.

    Args:
        image: The image, as `read_image` gives it (another mode is brought to RGB first).
        spec: What the checkpoint was trained on.

    Returns:
        Pixels f32[3,S,S], equal to the last bit to transformers' slow BlipImageProcessor.
    """
    resized = np.asarray(_to_rgb(image).resize((spec.width_px, spec.height_px), Image.Resampling[spec.resample.upper()]))
    # A u8 has 256 values: each channel's answer to each is worked out once, in transformers' order of operations and roundings.
    rescaled = (np.arange(256, dtype=np.float64) * spec.rescale).astype(np.float32)
    pixels = np.empty((3, spec.height_px, spec.width_px), np.float32)
    for channel in range(3):
        table = (rescaled - np.float32(spec.mean[channel])) / np.float32(spec.std[channel])
        np.take(table, resized[:, :, channel], out=pixels[channel], mode="clip")  # "clip" (never needed) saves a copy
    return pixels


def _decode(file: BinaryIO, max_pixels: int) -> Image.Image:
    """Decodes the first frame of a seekable file, H * W bounded before, upright and RGB after."""
    if not file.read(1):
        raise _UnfitError("is empty; copy it again")
    image = _open(file)
    in_python = image.format == "PPM" and image.tile[0].codec_name != "raw"
    _check_size(*image.size, min(max_pixels, MAX_PPM_PIXELS) if in_python else max_pixels)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        with contextlib.suppress(Exception):  # load() fails where this does, but takes what the first call has found from the second on
            image.getexif()
        exif = image.getexif()
        for tag in set(exif) - {ExifTags.Base.Orientation}:
            del exif[tag]  # load() would follow the pointers among them, and fail if they are broken
        image.info.pop("xmp", None)  # likewise
    image.load()
    with contextlib.suppress(Exception):  # whatever is wrong with the EXIF block: the image is whole and captioned as it lies
        ImageOps.exif_transpose(image, in_place=True)
    return _to_rgb(image)


def _open(file: BinaryIO) -> ImageFile.ImageFile:
    """Identifies a file and reads its header."""
    try:
        return Image.open(file, formats=FORMATS)
    except (UnidentifiedImageError, ValueError):
        file.seek(0)
        head = file.read(4096)
        if head[4:8] != b"ftyp" or b"Exif" not in head:
            raise
        # libavif gives up on an AVIF with a broken EXIF block: look again with that block renamed.
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
    """Gives the image as RGB: as `convert` does, but greys of more than 8 bits are scaled first."""
    image.load()
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16"):
        # Pillow keeps the upper byte of 16-bit colours: the same for greys. Some TIFFs declare 12 bits instead.
        bits = image.tag_v2.get(258, (16,))[0] if isinstance(image, TiffImagePlugin.TiffImageFile) else 16
        image = Image.fromarray((np.asarray(image) >> (bits - 8)).astype(np.uint8))
    elif image.mode in ("I", "F"):
        low, high = cast("tuple[float, float]", image.getextrema())
        top = 65535 if image.mode == "I" else 255
        if not 0 <= low <= high <= top:
            raise _UnfitError(f"has grey values from {low} to {high}, outside 0 to {top}; save it with 8 bits")
        if image.mode == "F" and high <= 1:
            image = image.point(lambda value: value * 255.0 + 0.5).convert("L")
        elif image.mode == "I" and (high > 255 or image.format == "PPM"):  # Pillow scales any PPM of more than 8 bits to 16
            image = image.point(lambda value: value / 256.0).convert("L")
    return image.convert("RGB")


def _shown(source: object, name: str | None) -> str:
    text = name if name is not None else str(source) if isinstance(source, (str, os.PathLike)) else f"<{type(source).__name__}>"
    return text if text and text.isprintable() else ascii(text)  # an error is one line, whatever the file is called


def _problem(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"is not an image that can be read ({', '.join(FORMATS)}), or its start is damaged; save it as one of these"
    if isinstance(error, Image.DecompressionBombError):
        return "is too large: more pixels than Pillow opens; scale it down"
    if isinstance(error, FileNotFoundError):
        return "no such file; check the path"
    reason = (isinstance(error, OSError) and error.strerror) or " ".join(str(error).split()) or type(error).__name__
    return reason if isinstance(error, _UnfitError) else f"cannot be read: {reason}; copy or save it again"
