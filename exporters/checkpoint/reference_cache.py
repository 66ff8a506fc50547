"""Cache reference runs between exports, as `<user's cache>/blip-toolkit/references/<key>.json`.

A reference run takes longer than most exports. The key is a hash of everything that the run depends on: the checkpoint, its tokenizer and
image preprocessing, the images with their captions, and the version of transformers. If the cache cannot be used, a warning is logged and
the reference runs again.
"""

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from exporters.gate.gate import AnyReference
from exporters.gate.labelled_image import LabelledImage
from runtimes.artifact import json_dataclass
from runtimes.storage.atomic_write import write_atomically

logger = logging.getLogger(__name__)

R = TypeVar("R", bound=AnyReference)

MAX_FILES = 64
"""Files beyond this number are deleted, oldest first. A run of 21 images takes 20 kB."""


def cache_folder() -> Path | None:
    """Return the folder of cached runs, below XDG_CACHE_HOME or ~/.cache; None if the user has no home directory."""
    root = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        return (root if root.is_absolute() else Path.home() / ".cache") / "blip-toolkit" / "references"
    except RuntimeError:
        return None


def cached_reference(content: object, images: Sequence[LabelledImage], kind: type[R], run: Callable[[], R]) -> R:
    """Return the cached reference of this content, or compute and cache it.

    Args:
        content: Everything that the run depends on, as JSON values; hashed into the key.
        images: The images of the run. A cached file whose entries do not match them is ignored and replaced.
        kind: Class of the reference.
        run: Computes the reference.
    """
    folder = cache_folder()
    if folder is None:
        logger.warning("the reference run is not cached: there is no home directory and XDG_CACHE_HOME is not set")
        return run()
    file = folder / f"{hashlib.sha256(json_dataclass.canonical_json(content)).hexdigest()}.json"
    if (cached := _read(file, images, kind)) is not None:
        with contextlib.suppress(OSError):  # the cache may be read-only
            file.touch()
        return cached
    reference = run()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json_dataclass.canonical_json(json_dataclass.dump(reference)))
    except OSError as error:
        logger.warning("cannot cache the reference run in %s (%s); the next export runs it again", folder, error.strerror or error)
    with contextlib.suppress(OSError):
        for old in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime)[:-MAX_FILES]:
            old.unlink()
    return reference


def _read(file: Path, images: Sequence[LabelledImage], kind: type[R]) -> R | None:
    """Return the reference in a file; None if the file is missing, damaged, or does not match the images."""
    try:
        reference, _ = json_dataclass.load(kind, json.loads(file.read_bytes()))
    except (OSError, ValueError, RecursionError):
        return None
    return reference if reference is not None and reference.fits(images) else None
