"""Read an image as RGB from a path, bytes, a Pillow image or an array, and preprocess it to pixels.

Axes: H, W pixels of the given image; S side of the square that the checkpoint accepts (`ImageSpec.height_px`, `width_px`).

Images come from untrusted sources. Pillow does not document its exceptions, detects decompression bombs only from 179 million pixels, and
tries 40 formats. So this module accepts a list of formats, checks the size before any pixel is decoded, decodes the whole image (a
truncated file must not be captioned as a half grey image), and raises `ImageReadError` for every failure of an image. A failure of the
machine (memory, file descriptors, disk, network share) is an `EnvironmentFailedError`.

One rule applies to paths, bytes and Pillow images: the image is rotated by the EXIF orientation that it carries, and alpha is dropped, as
transformers does. Metadata is used for nothing else: broken or oversized metadata is ignored.

`preprocess` returns the same bits as the slow BlipImageProcessor of transformers, with which the checkpoints were trained, except
for greys of more than 8 bits; see `colors`.
"""

import contextlib
import errno
import io
import logging
import os
import threading
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, JpegImagePlugin, TiffImagePlugin, UnidentifiedImageError

from runtimes.artifact.manifest import ImageSpec
from runtimes.errors import EnvironmentFailedError, ImageReadError, ImageTooLargeError, RequestError, ToolkitError
from runtimes.images.colors import TRANSPOSE, to_rgb, upright_rgb
from runtimes.images.formats import HEAD_BYTES, webp_size, without_metadata
from runtimes.images.opening import FORMATS, TooLargeError, UnfitError, open_image


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """An image that was read and preprocessed before the call that runs the model, by `read_pixels`."""

    pixels: NDArray[np.float32]
    """f32[3,S,S]."""


ImageInput: TypeAlias = str | os.PathLike[str] | bytes | Image.Image | NDArray[np.uint8] | PreparedImage
"""A path, a file's bytes, a Pillow image, u8[H,W,3] RGB, u8[H,W,4] RGBA (alpha is dropped) or u8[H,W] grey, or a `PreparedImage`."""

Images: TypeAlias = ImageInput | Iterable[ImageInput]
"""One image or several."""

MAX_PIXELS: Final = 50_000_000
MAX_SIDE_PX: Final = 100_000  # resizing needs about 32 bytes per pixel of the longer side
MAX_PPM_PIXELS: Final = 4_000_000  # for PPM variants that Pillow decodes in Python, at about 2 s per million pixels
MAX_REDUCTION: Final = 8  # libjpeg decodes at 1/2, 1/4 and 1/8 of the size
MAX_PROGRESSIVE_REDUCTION: Final = 2  # libjpeg stores all coefficients of a progressive JPEG at full size
ENVIRONMENT_ERRORS: Final = frozenset(
    getattr(errno, name)
    for name in ("EMFILE", "ENFILE", "ENOMEM", "EIO", "ESTALE", "ETIMEDOUT", "ENOBUFS", "EHOSTDOWN", "EREMOTEIO", "ENOTCONN", "ENXIO")
    if hasattr(errno, name)
)
"""Values of `OSError.errno` that the machine causes, not the image."""
logging.getLogger("PIL").addHandler(logging.NullHandler())  # otherwise a program without logging prints Pillow's errors


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
    return isinstance(images, (str, os.PathLike, bytes, Image.Image, np.ndarray, PreparedImage))


def each_image(images: Images) -> Iterable[ImageInput]:
    """Return an iterable over a single image or several images.

    Raises:
        RequestError: The argument is neither an image nor iterable.
    """
    if is_image(images):
        return (cast("ImageInput", images),)
    if not isinstance(images, Iterable) or isinstance(images, (bytearray, memoryview, io.IOBase)):  # the last ones yield numbers or lines
        raise RequestError(f"images must be an image (a path, bytes, a PIL image, an array) or several, not {type(images).__qualname__}")
    return cast("Iterable[ImageInput]", images)


def read_image(source: ImageInput, name: str | None = None, max_pixels: int = MAX_PIXELS, *, reduce_large: bool = False) -> Image.Image:
    """Decode a whole image and return it as RGB.

    The first frame is returned, rotated by the EXIF orientation that the file or the Pillow image carries. `ImageOps.exif_transpose`
    removes that orientation from a Pillow image, so the image is not rotated twice. An RGB image that needs no rotation is returned
    itself, not as a copy. Alpha is dropped, not blended, as transformers does. Greys of 16 bits are scaled to 8 bits.

    Args:
        source: The image, see `ImageInput`.
        name: Name of the image in errors; None: its path or type.
        max_pixels: Largest H * W to decode. It replaces Pillow's own limit, except for WebP files.
        reduce_large: Decode a JPEG file with more pixels at 1/2, 1/4 or 1/8 of its size, the largest that fits `max_pixels`.

    Raises:
        ImageReadError: The image is missing, damaged, not an image, or of an unsupported kind.
        ImageTooLargeError: The image has more pixels than `max_pixels`.
        EnvironmentFailedError: Memory, file descriptors, disk or network share failed; the image may be readable later.
    """
    try:
        with _quiet_pillow:
            if isinstance(source, (str, os.PathLike)):
                with Path(source).open("rb") as file:
                    return _decode(file if file.seekable() else io.BytesIO(file.read()), max_pixels, reduce_large)
            if isinstance(source, bytes):
                return _decode(io.BytesIO(source), max_pixels, reduce_large)
            if isinstance(source, Image.Image):
                _check_size(*source.size, max_pixels)
                return upright_rgb(source)
            return to_rgb(_from_array(source, max_pixels))
    except Exception as error:  # Pillow promises no closed set: OSError, ValueError, SyntaxError, struct.error, ...
        raise error_of(error, image_name(source, name)) from error


def read_pixels(
    source: ImageInput, spec: ImageSpec, name: str | None = None, *, max_pixels: int = MAX_PIXELS, reduce_large: bool = False
) -> NDArray[np.float32]:
    """Read and preprocess an image; return pixels f32[3,S,S]. Arguments and errors are those of `read_image` and `preprocess`."""
    if isinstance(source, PreparedImage):
        return source.pixels
    return preprocess(read_image(source, name, max_pixels, reduce_large=reduce_large), spec)


def upright_size(content: bytes) -> tuple[int, int] | None:
    """Return width and height in pixels of an image after its EXIF rotation, from its header; None if the header alone does not tell."""
    with contextlib.suppress(Exception), _quiet_pillow:  # as in `read_image`: Pillow promises no closed set
        image = open_image(io.BytesIO(content))
        width, height = image.size
        turned = (Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_270, Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_90)
        return (height, width) if TRANSPOSE.get(image.getexif().get(ExifTags.Base.Orientation, 1)) in turned else (width, height)
    return None


def error_of(error: Exception, name: str) -> ToolkitError:
    """Return the error of an image for an exception that was raised while it was read or preprocessed."""
    if isinstance(error, MemoryError):
        return EnvironmentFailedError(name, "not enough memory")
    if isinstance(error, OSError) and error.errno in ENVIRONMENT_ERRORS:
        return EnvironmentFailedError(name, error.strerror or str(error))
    if isinstance(error, (TooLargeError, Image.DecompressionBombError)):
        return ImageTooLargeError(name, _problem(error))
    return ImageReadError(name, _problem(error))


def preprocess(image: Image.Image, spec: ImageSpec) -> NDArray[np.float32]:
    """Resize an RGB image without cropping, rescale and normalize it.

    Args:
        image: Result of `read_image`. Other modes are converted to RGB.
        spec: Preprocessing of the checkpoint.

    Returns:
        Pixels f32[3,S,S], bit for bit those of the slow BlipImageProcessor of transformers.
    """
    resized = np.asarray(to_rgb(image).resize((spec.width_px, spec.height_px), Image.Resampling[spec.resample.upper()]))
    # A u8 has 256 values, so each channel needs a table of 256 results, computed in the order and precision of transformers.
    rescaled = (np.arange(256, dtype=np.float64) * spec.rescale).astype(np.float32)
    pixels = np.empty((3, spec.height_px, spec.width_px), np.float32)
    for channel in range(3):
        table = (rescaled - np.float32(spec.mean[channel])) / np.float32(spec.std[channel])
        np.take(table, resized[:, :, channel], out=pixels[channel], mode="clip")  # mode "clip" avoids a copy; no index is out of range
    return pixels


def _decode(file: BinaryIO, max_pixels: int, reduce_large: bool) -> Image.Image:
    """Return the first frame of a seekable file. If it cannot be decoded, decode it without metadata, first with EXIF, then without."""
    try:
        return _decode_once(file, max_pixels, reduce_large)
    except (UnfitError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in ENVIRONMENT_ERRORS:
            raise
        file.seek(0)
        data = file.read()
        for keep_exif in (True, False):
            if (pixels_only := without_metadata(data, keep_exif=keep_exif)) != data:
                with contextlib.suppress(Exception):
                    return _decode_once(io.BytesIO(pixels_only), max_pixels, reduce_large)
        raise


def _decode_once(file: BinaryIO, max_pixels: int, reduce_large: bool) -> Image.Image:
    """Return the first frame of a seekable file, rotated and as RGB. The size is checked before decoding."""
    head = file.read(HEAD_BYTES)
    if not head:
        raise UnfitError("is empty; copy it again")
    if size := webp_size(head):  # Pillow allocates the image when it opens a WebP
        _check_size(*size, max_pixels)
    image = open_image(file)
    if reduce_large and isinstance(image, JpegImagePlugin.JpegImageFile):
        _reduce(image, max_pixels)
    in_python = image.format == "PPM" and image.tile[0].codec_name != "raw"
    _check_size(*image.size, min(max_pixels, MAX_PPM_PIXELS) if in_python else max_pixels)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        with contextlib.suppress(Exception):  # fails on broken tags; the second call and load() then use the tags that this one read
            image.getexif()
        exif = image.getexif()
        for tag in set(exif) - {ExifTags.Base.Orientation}:
            del exif[tag]  # load() follows pointers in these tags, and fails if one is broken
        image.info.pop("xmp", None)  # likewise
        if sorted(image._tile_size) == sorted(image.size):  # the size is checked: load() would compare it with Pillow's limit
            image.im = Image.new(image.mode, image._tile_size).im
    image.load()
    return upright_rgb(image)


def _reduce(image: JpegImagePlugin.JpegImageFile, max_pixels: int) -> None:
    """Set the scale at which a JPEG is decoded, so that it has at most `max_pixels` pixels."""
    width, height = image.size
    scale, largest = 1, MAX_PROGRESSIVE_REDUCTION if image.info.get("progressive") else MAX_REDUCTION
    while scale < largest and -(-width // scale) * -(-height // scale) > max_pixels:
        scale *= 2
    if scale > 1:
        image.draft(None, (max(1, width // scale), max(1, height // scale)))


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise UnfitError(f"has no pixels ({width}x{height}); save it again")
    if width * height > max_pixels or max(width, height) > MAX_SIDE_PX:
        raise TooLargeError(
            f"is too large: {width}x{height} pixels; at most {max_pixels:,} in all and {MAX_SIDE_PX:,} a side; scale it down"
        )


def _from_array(array: object, max_pixels: int) -> Image.Image:
    accepted = "give a path, bytes, a Pillow image or a uint8 array of shape [H,W,3], [H,W,4] or [H,W]"
    if not isinstance(array, np.ndarray):
        raise UnfitError(f"is of type {type(array).__qualname__}; {accepted}")
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise UnfitError(f"is an array {array.dtype}[{','.join(map(str, array.shape))}]; {accepted}")
    _check_size(array.shape[1], array.shape[0], max_pixels)
    return Image.fromarray(array)


def image_name(source: object, name: str | None = None) -> str:
    """Return the printable name of an image for errors: the given name, its path or its type."""
    text = name if name is not None else str(source) if isinstance(source, (str, os.PathLike)) else f"<{type(source).__name__}>"
    return text if text and text.isprintable() else ascii(text)  # a line break in a file name must not split the error message


def _problem(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"is not an image that can be read ({', '.join(FORMATS)}), or its start is damaged; save it as one of these"
    if isinstance(error, Image.DecompressionBombError):  # a GIF whose first frame is larger than its canvas
        return "is too large: more pixels than Pillow opens; scale it down"
    if isinstance(error, FileNotFoundError):
        return "no such file; check the path"
    reason = (isinstance(error, OSError) and error.strerror) or " ".join(str(error).split()) or type(error).__name__
    return reason if isinstance(error, UnfitError) else f"cannot be read: {reason}; copy or save it again"
