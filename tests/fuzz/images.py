"""Mutated images of every format: `read_image` must return the pixels of Pillow's `convert("RGB")`, or raise `ImageReadError`.

The oracle differs from Pillow where the toolkit does on purpose: EXIF turns an image, greys of more than 8 bits are scaled and not
clipped. An image of which only the EXIF block is broken, so that Pillow itself gives up, must still be one of its seed's eight turns.
"""

import contextlib
import io
import random
import resource
import time
import warnings

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin

from runtimes.errors import ImageReadError
from runtimes.images.formats import ENDINGS, without_metadata
from runtimes.images.reading import read_image
from tests.fuzz.mutate import damaged
from tests.fuzz.tally import Tally
from tests.images import FILES, PALETTE, RGB, encode, exif

MAX_PIXELS = 1_000_000
"""Smaller than the default, so that thousands of cases take a minute and not an hour."""
MAX_SECONDS = 10
MAX_GROWTH_KB = 400_000

SEEDS = {
    **FILES,
    **{f"{form} turned": encode(RGB, form.upper(), exif=exif(6)) for form in ("jpeg", "png", "webp", "tiff", "avif")},
    "png palette turned": encode(PALETTE, "PNG", exif=exif(8)),
}
PILLOW_FORMATS = [name for name in ENDINGS if name != "HEIF"]


def run(count: int, seed: int) -> Tally:
    """Read mutated images of each format equally often."""
    tally = Tally("mutated images", "Pillow's pixels of the same bytes, or a named error; never over 10 s or 400 MB")
    chance, kinds = random.Random(seed), list(SEEDS)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(count):
        kind = kinds[number % len(kinds)]
        how, data = damaged(SEEDS[kind], chance)
        case, started = f"image {number}, seed {seed}: {kind}, {how}", time.perf_counter()
        try:
            pixels = np.asarray(read_image(data, max_pixels=MAX_PIXELS))
        except ImageReadError as error:
            tally.note(error.code, None if str(error).isprintable() else f"{case}: {error!r}")
        except Exception as error:
            tally.note("another exception", f"{case}: {error!r}")
        else:
            tally.note("pixels", None if any(map(matches(pixels), expected(data, SEEDS[kind]))) else f"{case}: other pixels than Pillow's")
        if time.perf_counter() - started > MAX_SECONDS:
            tally.broken.append(f"{case}: took {time.perf_counter() - started:.0f} s")
    if (grown := resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) > MAX_GROWTH_KB:
        tally.broken.append(f"the process grew by {grown} kB")
    return tally


def matches(pixels):
    """Return a function that compares pixels with these."""
    return lambda wanted: np.array_equal(pixels, wanted)


def expected(data, seed):
    """Return all correct arrays: the image as stored, and rotated by its EXIF orientation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = Image.open(io.BytesIO(data), formats=PILLOW_FORMATS)
            yield np.asarray(rgb(image))
            yield np.asarray(rgb(ImageOps.exif_transpose(Image.open(io.BytesIO(data), formats=PILLOW_FORMATS))))
        except Exception:  # Pillow documents no closed set of errors for damaged bytes; without its answer, the seed's pixels are expected
            with contextlib.suppress(Exception):  # an AVIF with its EXIF block renamed
                yield np.asarray(rgb(Image.open(io.BytesIO(data.replace(b"Exif", b"skip", 1)), formats=PILLOW_FORMATS)))
            for keep_exif in (True, False):  # pixels that Pillow refuses for their metadata
                with contextlib.suppress(Exception):
                    image = Image.open(io.BytesIO(without_metadata(data, keep_exif=keep_exif)), formats=PILLOW_FORMATS)
                    yield np.asarray(rgb(image))
                    yield np.asarray(rgb(ImageOps.exif_transpose(image)))
            for turn in (None, *Image.Transpose):
                whole = Image.open(io.BytesIO(seed)).convert("RGB")
                yield np.asarray(whole if turn is None else whole.transpose(turn))


def rgb(image):
    """Return Pillow's conversion, with greys of more than 8 bits scaled."""
    image.load()
    if image.mode.startswith("I;16"):
        bits = image.tag_v2.get(258, (16,))[0] if isinstance(image, TiffImagePlugin.TiffImageFile) else 16
        return Image.fromarray((np.asarray(image) >> (bits - 8)).astype(np.uint8)).convert("RGB")
    if image.mode == "I" and (image.getextrema()[1] > 255 or image.format == "PPM"):
        return Image.fromarray((np.asarray(image) // 256).astype(np.uint8)).convert("RGB")
    if image.mode == "F" and image.getextrema()[1] <= 1:
        return Image.fromarray((np.asarray(image) * 255.0 + 0.5).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")
