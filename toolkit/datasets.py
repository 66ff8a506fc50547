"""Images with references for a benchmark: a name, a captions file or a folder goes in, a list of images comes out."""

import hashlib
import json
import logging
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from exporters.gate.labelled_image import LabelledImage
from runtimes.artifact import json_dataclass
from runtimes.artifact.folder import sha256_of
from runtimes.errors import DatasetError
from toolkit.image_paths import in_folder

logger = logging.getLogger(__name__)

SAMPLE = Path(__file__).parent / "sample" / "captions.json"
SEED = 0


@dataclass(frozen=True)
class Dataset:
    """Images, with references or without."""

    name: str
    images: tuple[LabelledImage, ...]
    path: str | None = None
    """The dataset as it was named, and the folder of images; None where none was."""
    images_path: str | None = None
    limit: int | None = None
    """Images that were taken of it; None: all."""

    @property
    def has_references(self) -> bool:
        """Whether every image has captions to compare with."""
        return all(image.captions for image in self.images)

    @property
    def sha256(self) -> str:
        """Hash of all images and references."""
        rows = [
            [shown_name(image.path.name), sha256_of(image.path) if image.path.is_file() else None, list(image.captions)]
            for image in self.images
        ]
        return hashlib.sha256(json_dataclass.canonical_json(rows)).hexdigest()


def load_dataset(name: str | None, images: Path | None = None, limit: int | None = None) -> Dataset:
    """Find the images to measure on.

    Args:
        name: "sample"; a captions.json (`{"images": [{"file", "captions"}]}`) or the folder that holds it; COCO's
            captions_val2017.json, together with `images`; or None for `images` alone, which have no references.
        images: Folder of images.
        limit: Take that many, chosen with a fixed seed, in their order.

    Raises:
        DatasetError: It is missing, unreadable or empty.
    """
    if name is None:
        if images is None or not images.is_dir():
            raise DatasetError(str(images), "no such folder of images")
        dataset = Dataset(str(images), tuple(LabelledImage(path, ()) for path in in_folder(images)))
    else:
        file = SAMPLE if name == "sample" else Path(name) / "captions.json" if Path(name).is_dir() else Path(name)
        dataset = Dataset("sample" if name == "sample" else _short(file), tuple(_read(file, images)))
        if without := [image.path.name for image in dataset.images if not image.captions]:
            logger.warning("%s: %d images have no captions and are left out (first: %s)", dataset.name, len(without), without[0])
            dataset = Dataset(dataset.name, tuple(image for image in dataset.images if image.captions))
    if not dataset.images:
        raise DatasetError(dataset.name, "holds no images")
    if limit is not None and limit < len(dataset.images):
        chosen = sorted(random.Random(SEED).sample(range(len(dataset.images)), limit))  # noqa: S311 - a fixed sample, not a secret
        dataset = Dataset(f"{dataset.name} ({limit} of {len(dataset.images)})", tuple(dataset.images[i] for i in chosen), limit=limit)
    return replace(dataset, path=name, images_path=str(images) if images else None)


def shown_name(name: str) -> str:
    """Return a file name as text, even where its bytes are none."""
    return name if name.isprintable() else ascii(name)


def _short(file: Path) -> str:
    """Name a captions file by its folder where it is called captions.json."""
    return file.resolve().parent.name if file.name == "captions.json" else file.stem


def _read(file: Path, images: Path | None) -> list[LabelledImage]:
    try:
        parsed = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"not JSON ({error})"
        raise DatasetError(str(file), f"cannot be read: {reason}") from error
    try:
        if "annotations" in parsed:
            return _coco(parsed, file, images)
        return [LabelledImage((images or file.parent) / entry["file"], _captions(entry["captions"])) for entry in parsed["images"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise DatasetError(str(file), "is neither {'images': [{'file', 'captions'}]} nor COCO's captions file") from error


def _coco(parsed: Mapping[str, Any], file: Path, images: Path | None) -> list[LabelledImage]:
    if images is None:
        raise DatasetError(str(file), "is COCO's captions file; name the folder of its images with --images")
    captions: dict[int, list[str]] = defaultdict(list)
    for annotation in parsed["annotations"]:
        captions[annotation["image_id"]].append(annotation["caption"])
    return [LabelledImage(images / entry["file_name"], _captions(captions[entry["id"]])) for entry in parsed["images"]]


def _captions(captions: Sequence[str]) -> tuple[str, ...]:
    if isinstance(captions, str):
        raise TypeError("a list of captions, not one")  # its letters would be taken for captions
    return tuple(str(caption).strip() for caption in captions)
