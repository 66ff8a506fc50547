"""Small images for a page: a dataset goes in; data addresses of JPEGs, which need no other file, come out."""

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
"""The longer side, twice what the page shows, for dense screens; about 15 kB an image."""


def thumbnails(dataset: Dataset, places: Sequence[int]) -> dict[int, str]:
    """Return the address of a thumbnail for each place in the dataset; an image that cannot be read has none."""
    found = {}
    for place in places:
        try:
            found[place] = _address(read_image(dataset.images[place].path))
        except ImageReadError as error:
            logger.warning("no thumbnail: %s", error)
    return found


def _address(image: Image.Image) -> str:
    image = image.copy()
    image.thumbnail((SIDE_PX, SIDE_PX))
    content = io.BytesIO()
    image.save(content, "JPEG", quality=QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode("ascii")
