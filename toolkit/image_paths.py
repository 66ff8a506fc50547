"""The images that names stand for: files, folders, globs, and lists of paths."""

import glob
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from runtimes.errors import RequestError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pnm", ".avif"})
"""What counts as an image in a folder; a file that is named outright may end in anything."""


def in_folder(folder: Path) -> list[Path]:
    """Return the images of a folder and of the folders in it, sorted by path; hidden files are no images of the user's."""
    return sorted(path for path in folder.rglob("[!.]*") if path.suffix.lower() in SUFFIXES and path.is_file())


def expand(names: Sequence[str]) -> list[str]:
    """Return the images that names stand for; a name that is no file, folder or glob stays, and becomes an error row.

    Raises:
        RequestError: A folder or glob holds no image.
    """
    found: list[str] = []
    for name in names:
        if Path(name).is_dir():
            images = [str(path) for path in in_folder(Path(name))]
        elif glob.has_magic(name) and not Path(name).exists():
            matches = glob.glob(name, recursive=True)  # noqa: PTH207 - Path.glob refuses absolute patterns
            images = sorted(match for match in matches if Path(match).is_file())
        else:
            images = [name]
        if not images:
            raise RequestError(f"{name}: no images here")
        found += images
    return list(dict.fromkeys(found))


BLOCK_BYTES = 1 << 16
MAX_PATH_BYTES = 1 << 16
"""Longer than any system's paths, so what is longer is no list of paths."""


def read_list(source: str) -> Iterator[str]:
    """Yield the paths of a list while it is read: one a line, or one between NUL bytes if there are any (`find -print0`).

    Paths are UTF-8; other bytes become surrogates, as Python names such files. A path is taken as it is: a folder or glob is no image.

    Args:
        source: The list's path, or "-" for stdin.

    Raises:
        RequestError: It cannot be read, or is no list of paths.
    """
    rest, separator = b"", b""
    try:
        opened: Any = nullcontext(sys.stdin.buffer) if source == "-" else Path(source).open("rb")  # noqa: SIM115 - the block closes it
        with opened as stream:
            while block := stream.read1(BLOCK_BYTES):  # what is there: who writes the list may still be at work
                rest += block
                separator = separator or next((each for each in (b"\0", b"\n") if each in rest), b"")
                if separator:
                    *paths, rest = rest.split(separator)
                    yield from map(_decoded, filter(bytes.strip, paths))
                if len(rest) > MAX_PATH_BYTES:
                    raise RequestError(f"{source}: is no list of paths: {len(rest):,} bytes without the end of a line")
    except OSError as error:
        raise RequestError(f"{source}: cannot be read: {error.strerror}") from error
    if rest.strip():
        yield _decoded(rest)


def _decoded(line: bytes) -> str:
    """Return a path without the carriage return of a list that Windows wrote."""
    return line.removesuffix(b"\r").decode("utf-8", "surrogateescape")
