"""Keep reference runs between exports: `<user's cache>/blip-toolkit/references/<key>.json`.

A run of transformers takes longer than most exports. Its key is a hash of all that it depends on: the checkpoint, its tokenizer and image
processing, the images with their captions, and the version of transformers. A cache that cannot be used costs a warning and the time.
"""

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from exporters.gate.gate import Reference
from exporters.gate.labelled_image import LabelledImage
from runtimes.artifact import json_dataclass
from runtimes.storage.atomic_write import write_atomically

logger = logging.getLogger(__name__)

MAX_FILES = 64
"""The newest runs are kept. One of 21 images takes 20 kB."""


def cache_folder() -> Path | None:
    """Return the folder of reference runs, below XDG_CACHE_HOME or ~/.cache; None for a user who has no home."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        return (named if named.is_absolute() else Path.home() / ".cache") / "blip-toolkit" / "references"
    except RuntimeError:
        return None


def cached_reference(content: object, images: Sequence[LabelledImage], run: Callable[[], Reference]) -> Reference:
    """Return the kept run of this content, or run it and keep it.

    Args:
        content: What the run depends on, as JSON values.
        images: What it is of; a file that does not contain one entry for each is made again.
        run: Makes it.
    """
    folder = cache_folder()
    if folder is None:
        logger.warning("the reference run cannot be kept: there is no home folder and no XDG_CACHE_HOME")
        return run()
    file = folder / f"{hashlib.sha256(json_dataclass.canonical(content)).hexdigest()}.json"
    if (kept := _read(file, images)) is not None:
        with contextlib.suppress(OSError):  # a cache that may only be read
            file.touch()
        return kept
    reference = run()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json_dataclass.canonical(json_dataclass.to_json(reference)))
    except OSError as error:
        logger.warning("the reference run cannot be kept in %s (%s); the next export makes it again", folder, error.strerror or error)
    with contextlib.suppress(OSError):
        for old in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime)[:-MAX_FILES]:
            old.unlink()
    return reference


def _read(file: Path, images: Sequence[LabelledImage]) -> Reference | None:
    """Return the run in a file, or None if there is none that fits the images."""
    try:
        reference, _ = json_dataclass.from_json(Reference, json.loads(file.read_bytes()))
    except (OSError, ValueError, RecursionError):
        return None
    if reference is None:
        return None
    captions = [len(image.captions) for image in images]
    fits = [len(row) for row in reference.log_probabilities] == captions
    return reference if fits and len(reference.token_ids) == len(reference.margins_nat) == len(captions) else None
