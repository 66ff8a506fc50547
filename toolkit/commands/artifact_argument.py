"""The argument ARTIFACT: what it may be, and what is used if it is left out."""

import os
from collections.abc import Sequence
from glob import has_magic
from pathlib import Path

from runtimes.artifact.manifest import MANIFEST_NAME
from runtimes.errors import RequestError, UnavailableError
from toolkit.commands.options import announce

ARTIFACTS = Path("build/artifacts")
"""Default output of `toolkit export`, and default input of the other commands."""


def default_artifacts() -> Path:
    """Return the default folder of artifacts, and print on stderr that it is used.

    Raises:
        RequestError: There is no such folder.
    """
    announce(f"No artifact given: using {_artifacts_folder()}")
    return ARTIFACTS


def _artifacts_folder() -> Path:
    if not ARTIFACTS.is_dir():
        raise RequestError(f"no artifact given, and there is no {ARTIFACTS} here: name an artifact, or run: toolkit export CHECKPOINT")
    return ARTIFACTS


def default_artifact() -> Path:
    """Return the best artifact of the default folder for this machine, and print its path on stderr; see `best_artifact`.

    Raises:
        RequestError: There is no such folder.
    """
    return best_artifact(_artifacts_folder(), "No artifact given: ")


def best_artifact(folder: Path, reason: str = "") -> Path:
    """Return the best artifact of a folder for this machine, and print its path on stderr.

    Args:
        folder: The folder.
        reason: Start of the printed line.

    Raises:
        ArtifactMissingError: There is no artifact in the folder.
        RequestError: The folder has artifacts of different checkpoints.
        UnavailableError: No artifact of the folder can run here.
    """
    from runtimes.selection.candidates import find_candidates

    candidates = find_candidates(folder)
    if not candidates.ranked:
        raise UnavailableError(f"{folder}: no artifact in it can run here: {', '.join(candidates.manifests)}")
    best = candidates.ranked[0]
    announce(f"{reason}using {folder / best.name} ({best.why})" if reason else f"Using {folder / best.name} ({best.why})")
    return folder / best.name


def contains_artifacts(path: Path) -> bool:
    """Return whether a path is an artifact's folder or a folder of artifacts."""
    if os.path.isfile(path / MANIFEST_NAME):  # noqa: PTH113 - Path.is_file raises an error for a name that is too long
        return True
    return os.path.isdir(path) and next(path.glob(f"[!.]*/{MANIFEST_NAME}"), None) is not None  # noqa: PTH112 - likewise


def split_artifact(paths: Sequence[str], *, more_images: bool = False) -> tuple[Path | None, tuple[str, ...]]:
    """Split the arguments `[ARTIFACT] IMAGE...`; return the artifact or None, and the images.

    The first path is the artifact if it is a folder with a manifest.json, a folder of such folders, or a package by its suffix. A first
    path that does not exist and has no suffix is an artifact too: a misspelt artifact then fails as an artifact, not as an image.

    Args:
        paths: The arguments.
        more_images: Whether there are images besides these paths.
    """
    from runtimes.storage.archive import SUFFIX

    if not paths:
        return None, ()
    first = Path(paths[0])
    if (
        contains_artifacts(first)
        or first.name.endswith(SUFFIX)
        or ((more_images or len(paths) > 1) and not first.suffix and not has_magic(paths[0]) and not os.path.exists(first))  # noqa: PTH110
    ):
        return first, tuple(paths[1:])
    return None, tuple(paths)
