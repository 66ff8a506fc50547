"""Find images by name: files, folders, glob patterns and lists of paths."""

import glob
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from typing import Any

from runtimes.errors import RequestError
from runtimes.images.formats import ENDINGS, UNREADABLE_ENDINGS

logger = logging.getLogger(__name__)

SUFFIXES = frozenset(chain.from_iterable(ENDINGS.values()))
"""Suffixes of images in a folder. A file that is named itself may have any suffix."""
LEFT_OUT_SUFFIXES = frozenset(chain.from_iterable(UNREADABLE_ENDINGS.values()))


def in_folder(folder: Path) -> list[Path]:
    """Return the images of a folder and its subfolders, sorted by path.

    Hidden files and folders are left out. A linked folder is read once, and a folder is read by its own path rather than by a link's. A
    subfolder that cannot be read is returned itself, so that reading it makes an error row. The number of image files of other formats is
    logged as a warning.
    """
    images: list[Path] = []
    left_out: Counter[str] = Counter()
    seen: set[tuple[int, int]] = set()
    folders, links = [folder], list[Path]()
    while folders or links:
        current = folders.pop() if folders else links.pop(0)
        try:
            status = current.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            entries = sorted((entry for entry in os.scandir(current) if not entry.name.startswith(".")), key=lambda entry: entry.name)
        except OSError:
            images.append(current)
            continue
        for entry in entries:
            path, suffix = current / entry.name, Path(entry.name).suffix.lower()
            if os.path.isdir(path):  # noqa: PTH112 - False for an error
                (links if entry.is_symlink() else folders).append(path)
            elif suffix in SUFFIXES and os.path.isfile(path):  # noqa: PTH113 - likewise
                images.append(path)
            elif suffix in LEFT_OUT_SUFFIXES:
                left_out[suffix] += 1
    if left_out:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(left_out.items()))
        logger.warning("%s: %d image files are left out, because their formats are not read: %s", folder, left_out.total(), kinds)
    return sorted(images)


def expand(names: Sequence[str]) -> list[str]:
    """Return the paths of the images that names mean, each once.

    A name that is no file, folder or glob pattern is returned unchanged: reading it fails later, and makes an error row. The same applies
    to a name that the system refuses, for example because it is too long.

    Raises:
        RequestError: A folder or a glob pattern has no image.
    """
    paths: list[str] = []
    for name in names:
        if os.path.isdir(name):  # noqa: PTH112 - Path.is_dir raises an error for a name that is too long
            images = [str(path) for path in in_folder(Path(name))]
        elif glob.has_magic(name) and not os.path.exists(name):  # noqa: PTH110 - likewise
            matches = glob.glob(name, recursive=True)  # noqa: PTH207 - Path.glob refuses absolute patterns
            images = sorted(match for match in matches if os.path.isfile(match))  # noqa: PTH113 - likewise
        else:
            images = [name]
        if not images:
            raise RequestError(f"{name}: no images here")
        paths += images
    return list(dict.fromkeys(paths))


BLOCK_BYTES = 1 << 16
MAX_PATH_BYTES = 1 << 16
"""More than the longest path of any system: a file with a longer line is no list of paths."""


def read_list(source: str) -> Iterator[str]:
    """Yield the paths of a list while it is read: one per line, or separated by NUL bytes (`find -print0`).

    The first separator in the list decides which. Paths are UTF-8; other bytes become surrogates (`os.fsdecode`). Folders and glob patterns
    are not expanded.

    Args:
        source: Path of the list, or "-" for stdin.

    Raises:
        RequestError: The list cannot be read, or a line is longer than MAX_PATH_BYTES.
    """
    rest, separator = b"", b""
    try:
        opened: Any = nullcontext(sys.stdin.buffer) if source == "-" else Path(source).open("rb")  # noqa: SIM115 - the with statement closes it
        with opened as stream:
            while block := stream.read1(BLOCK_BYTES):  # read1 returns the available bytes: the list may still be written
                rest += block
                separator = separator or next((byte for byte in (b"\0", b"\n") if byte in rest), b"")
                if separator:
                    *paths, rest = rest.split(separator)
                    yield from map(_decoded, filter(bytes.strip, paths))
                if len(rest) > MAX_PATH_BYTES:
                    raise RequestError(f"{source}: is not a list of paths: {len(rest):,} bytes without a line end")
    except OSError as error:
        raise RequestError(f"{source}: cannot be read: {error.strerror}") from error
    if rest.strip():
        yield _decoded(rest)


def _decoded(line: bytes) -> str:
    """Return a path as text, without the carriage return of a Windows line end."""
    return line.removesuffix(b"\r").decode("utf-8", "surrogateescape")
