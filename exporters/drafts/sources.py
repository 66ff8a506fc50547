"""The images and texts that a draft table is made from."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from PIL import Image

from runtimes.errors import RequestError, ToolkitError
from runtimes.images.reading import read_image

logger = logging.getLogger(__name__)

MAX_TEXT_BYTES = 64 << 20


@dataclass(frozen=True, kw_only=True)
class DraftSources:
    """Images that the artifact captions, and captions as text. Neither may be used by the gate or the benchmark."""

    images: tuple[Path, ...] = ()
    texts: tuple[str, ...] = ()


def calibration_images() -> tuple[Path, ...]:
    """Return the calibration images that ship with the exporters."""
    return tuple(sorted(Path(str(file)) for file in resources.files("exporters.calibration").iterdir() if file.name.endswith(".jpg")))


def read_images(images: Sequence[Path]) -> Iterator[Image.Image]:
    """Yield the images as RGB. Images that cannot be read are left out; their number is logged as a warning."""
    unread = 0
    for path in images:
        try:
            image = read_image(path)
        except ToolkitError:
            unread += 1
            continue
        yield image
    if unread:
        logger.warning("%d of %d images for drafts cannot be read; the draft table is made from the others", unread, len(images))


def read_texts(path: Path) -> tuple[str, ...]:
    """Return the captions of a text file: UTF-8, one per line; empty lines are left out.

    Raises:
        RequestError: The file cannot be read, is not UTF-8, is too large or has no caption.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_TEXT_BYTES + 1)
        lines: Sequence[str] = content.decode().splitlines()
    except OSError as error:
        raise RequestError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise RequestError(f"{path}: is not UTF-8 text with one caption per line ({error})") from error
    if len(content) > MAX_TEXT_BYTES:
        raise RequestError(f"{path}: has more than {MAX_TEXT_BYTES >> 20} MiB; use fewer captions")
    if not (texts := tuple(line.strip() for line in lines if line.strip())):
        raise RequestError(f"{path}: has no caption; write one caption per line")
    return texts
