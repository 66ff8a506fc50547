"""Find images by name: files, folders, glob patterns and lists of paths."""

import glob
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from runtimes.errors import RequestError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pnm", ".avif"})
"""Suffixes of images in a folder. A file that is named itself may have any suffix."""


def in_folder(folder: Path) -> list[Path]:
    """Return the images of a folder and its subfolders, sorted by path, without hidden files."""
    return sorted(path for path in folder.rglob("[!.]*") if path.suffix.lower() in SUFFIXES and path.is_file())


def expand(names: Sequence[str]) -> list[str]:
    """Return the paths of the images that names mean, each once.

    A name that is no file, folder or glob pattern is returned unchanged: reading it fails later, and makes an error row.

    Raises:
        RequestError: A folder or a glob pattern has no image.
    """
    paths: list[str] = []
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
