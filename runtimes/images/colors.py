"""Convert a decoded image to upright RGB with 8 bits.

Greys of 16 bits and of type float differ from transformers' on purpose: `convert("RGB")` clips nearly all of them to white.
"""

import contextlib
from typing import Final, cast

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin

from runtimes.images.opening import UnfitError

TRANSPOSE: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation to the operation that makes the image upright."""


def upright_rgb(image: Image.Image) -> Image.Image:
    """Convert an image to RGB and rotate it by its EXIF orientation. The given image is not changed."""
    rgb, orientation = to_rgb(image), None
    with contextlib.suppress(Exception):  # a broken EXIF block: the image is captioned without rotation
        orientation = TRANSPOSE.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return rgb if orientation is None else rgb.transpose(orientation)


def to_rgb(image: Image.Image) -> Image.Image:
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
            raise UnfitError(f"has grey values from {low} to {high}, outside 0 to {top}; save it with 8 bits")
        if image.mode == "F" and high <= 1:
            image = image.point(lambda value: value * 255.0 + 0.5).convert("L")
        elif image.mode == "I" and (high > 255 or image.format == "PPM"):  # Pillow scales every PPM of more than 8 bits to 16 bits
            image = image.point(lambda value: value / 256.0).convert("L")
    return image.convert("RGB")
