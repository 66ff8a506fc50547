"""Files, folders and globs go in; the pictures they name come out, sorted within each, each once."""

import glob
from collections.abc import Sequence
from pathlib import Path

from runtimes.errors import RequestError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pnm", ".avif"})
"""What counts as a picture in a folder; a file that is named outright may end in anything."""


def in_folder(folder: Path) -> list[Path]:
    """Return the pictures of a folder and of the folders in it, sorted by path; hidden files are no pictures of the user's."""
    return sorted(path for path in folder.rglob("[!.]*") if path.suffix.lower() in SUFFIXES and path.is_file())


def expand(names: Sequence[str]) -> list[str]:
    """Return the pictures that names stand for; a name that is no file, folder or glob stays, and becomes an error row.

    Raises:
        RequestError: A folder or glob holds no picture.
    """
    found: list[str] = []
    for name in names:
        if Path(name).is_dir():
            pictures = [str(path) for path in in_folder(Path(name))]
        elif glob.has_magic(name) and not Path(name).exists():
            matches = glob.glob(name, recursive=True)  # noqa: PTH207 - Path.glob refuses absolute patterns
            pictures = sorted(match for match in matches if Path(match).is_file())
        else:
            pictures = [name]
        if not pictures:
            raise RequestError(f"{name}: no pictures here")
        found += pictures
    return list(dict.fromkeys(found))
