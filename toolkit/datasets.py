"""Load the images of a benchmark, with or without reference texts, from a file of captions or questions, a folder or the sample."""

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
from toolkit.vqa_files import read_questions

logger = logging.getLogger(__name__)

SAMPLE = Path(__file__).parent / "sample" / "captions.json"
SAMPLES = {"caption": SAMPLE, "vqa": SAMPLE.with_name("questions.json"), "matching": SAMPLE}
"""Task → the shipped data set for it."""
SEED = 0


@dataclass(frozen=True)
class Dataset:
    """Images, with or without reference captions."""

    name: str
    images: tuple[LabelledImage, ...]
    path: str | None = None
    """The `name` given to `load_dataset`."""
    images_path: str | None = None
    """The folder given to `load_dataset`."""
    limit: int | None = None
    """Number of images chosen; None for all."""

    @property
    def has_references(self) -> bool:
        """Whether every image has reference captions."""
        return all(image.texts for image in self.images)

    @property
    def sha256(self) -> str:
        """Hash of all images and reference captions."""
        rows = [
            [
                shown_name(image.path.name),
                sha256_of(image.path) if image.path.is_file() else None,
                list(image.texts),
                *([] if image.question is None else [image.question]),
            ]
            for image in self.images
        ]
        return hashlib.sha256(json_dataclass.canonical_json(rows)).hexdigest()


def load_dataset(name: str | None, images: Path | None = None, limit: int | None = None, task: str = "caption") -> Dataset:
    """Load a dataset.

    Args:
        name: "sample"; the path of a captions.json (`{"images": [{"file", "captions"}]}`) or of its folder; the path of COCO's
            captions_val2017.json, which needs `images`; the path of a file of questions, see `toolkit.vqa_files`; or None for the images
            of a folder, without reference texts.
        images: Folder of images.
        limit: Choose this many images, or questions, with a fixed seed, in their order; None for all.
        task: Which data set of the sample: a key of `SAMPLES`.

    Raises:
        DatasetError: The dataset is missing, unreadable or empty.
    """
    if name is None:
        if images is None or not images.is_dir():
            raise DatasetError(str(images), "no such folder of images")
        dataset = Dataset(str(images), tuple(LabelledImage(path, ()) for path in in_folder(images)))
    else:
        file = SAMPLES[task] if name == "sample" else Path(name) / "captions.json" if Path(name).is_dir() else Path(name)
        dataset = Dataset("sample" if name == "sample" else _short(file), tuple(_read(file, images)))
        if dataset.images and not any(image.texts for image in dataset.images):
            raise DatasetError(dataset.name, "none of its images has captions or answers")
        if missing := [image.path.name for image in dataset.images if not image.texts]:
            logger.warning("%s: %d images have no captions or answers and are not used (first: %s)", dataset.name, len(missing), missing[0])
            dataset = Dataset(dataset.name, tuple(image for image in dataset.images if image.texts))
    if not dataset.images:
        raise DatasetError(dataset.name, "has no images")
    if limit is not None and limit < len(dataset.images):
        chosen = sorted(random.Random(SEED).sample(range(len(dataset.images)), limit))  # noqa: S311 - a reproducible sample, not a secret
        dataset = Dataset(f"{dataset.name} ({limit} of {len(dataset.images)})", tuple(dataset.images[i] for i in chosen), limit=limit)
    return replace(dataset, path=name, images_path=str(images) if images else None)


def shown_name(name: str) -> str:
    """Return a file name as printable text, even if its bytes are not valid UTF-8."""
    return name if name.isprintable() else ascii(name)


def _short(file: Path) -> str:
    """Return the name of a dataset: the folder of a captions.json, or the stem of another file."""
    return file.resolve().parent.name if file.name == "captions.json" else file.stem


def _read(file: Path, images: Path | None) -> list[LabelledImage]:
    try:
        parsed = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"not JSON ({error})"
        raise DatasetError(str(file), f"cannot be read: {reason}") from error
    try:
        if "questions" in parsed:
            return read_questions(parsed, file, images)
        if "annotations" in parsed:
            return _coco(parsed, file, images)
        return [LabelledImage((images or file.parent) / entry["file"], _captions(entry["captions"])) for entry in parsed["images"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise DatasetError(
            str(file), "is neither {'images': [{'file', 'captions'}]} nor a file of COCO's captions or VQAv2's questions"
        ) from error


def _coco(parsed: Mapping[str, Any], file: Path, images: Path | None) -> list[LabelledImage]:
    if images is None:
        raise DatasetError(str(file), "is a captions file of COCO; name the folder of its images with --images")
    captions: dict[int, list[str]] = defaultdict(list)
    for annotation in parsed["annotations"]:
        captions[annotation["image_id"]].append(annotation["caption"])
    return [LabelledImage(images / entry["file_name"], _captions(captions[entry["id"]])) for entry in parsed["images"]]


def _captions(captions: Sequence[str]) -> tuple[str, ...]:
    if isinstance(captions, str):
        raise TypeError("captions must be a list")  # each letter of a string would become a caption
    return tuple(str(caption).strip() for caption in captions)
