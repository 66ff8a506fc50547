"""Make thumbnails of a dataset as data URLs of JPEGs, which need no other file."""

import base64
import io
import logging
from collections.abc import Sequence

from PIL import Image

from runtimes.errors import ImageReadError
from runtimes.images.reading import read_image
from toolkit.datasets import Dataset

logger = logging.getLogger(__name__)

SIDE_PX, QUALITY = 320, 72
"""Pixels of the longer side and JPEG quality. The side is twice as long as on the page, for high-density screens; about 15 kB per image."""


def thumbnails(dataset: Dataset, indices: Sequence[int]) -> dict[int, str]:
    """Return index in the dataset → data URL; images that cannot be read are left out, with a warning."""
    urls = {}
    for index in indices:
        try:
            urls[index] = _data_url(read_image(dataset.images[index].path))
        except ImageReadError as error:
            logger.warning("no thumbnail: %s", error)
    return urls


def _data_url(image: Image.Image) -> str:
    image = image.copy()
    image.thumbnail((SIDE_PX, SIDE_PX))
    content = io.BytesIO()
    image.save(content, "JPEG", quality=QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode("ascii")
