"""Find images by name: files, folders, glob patterns and lists of paths."""

import codecs
import errno
import glob
import logging
import os
import re
import stat
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from runtimes.errors import RequestError
from runtimes.images.formats import ENDINGS, UNREADABLE_ENDINGS
from runtimes.storage.blocks import BLOCK_BYTES

logger = logging.getLogger(__name__)

SUFFIXES = frozenset(chain.from_iterable(ENDINGS.values()))
"""Suffixes of images in a folder. A file that is named itself may have any suffix."""
LEFT_OUT_SUFFIXES = frozenset(chain.from_iterable(UNREADABLE_ENDINGS.values()))
SEPARATOR = f"[{re.escape(os.sep + (os.altsep or ''))}]"
ANY_FOLDERS = re.compile(rf"(?:^|(?<={SEPARATOR}))\*\*(?:{SEPARATOR}|$)")
"""The component `**` of a glob pattern."""
NO_FILE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL})
"""Errors that mean that a name has no file."""


def is_folder(name: str) -> bool:
    """Return whether a name is a folder; False for a name that the system refuses.

    Raises:
        RequestError: The system fails to tell, and the name has no suffix of an image.
    """
    try:
        return stat.S_ISDIR(os.stat(name).st_mode)  # noqa: PTH116 - a Path for each name would take most of the time
    except ValueError:  # a NUL byte in the name
        return False
    except OSError as error:
        if error.errno in NO_FILE or _suffix(name) in SUFFIXES:
            return False
        raise RequestError(f"{name}: cannot be listed: {error.strerror}; correct this and try again") from error


def is_input(name: str) -> bool:
    """Return whether a name that exists is a file, or one that fails to be examined, so that reading it makes an error row."""
    try:
        return stat.S_ISREG(os.stat(name).st_mode)  # noqa: PTH116 - see is_folder
    except OSError as error:
        return error.errno not in NO_FILE


def in_folder(folder: Path) -> list[Path]:
    """Return the images of a folder and its subfolders, sorted by path; see `walk` for the errors."""
    return sorted(walk(folder))


def walk(folder: Path) -> Iterator[Path]:
    """Yield the images of a folder and its subfolders, sorted by path; those of linked folders follow.

    Hidden files and folders are left out. A linked folder is read once, and a folder is read by its own path rather than by a link's. A
    subfolder that cannot be read, and an image that is a broken link or cannot be examined, are yielded themselves, so that reading them
    makes an error row. The number of image files of other formats is logged as a warning. The names of one folder are in memory at once.

    Raises:
        OSError: The folder cannot be read.
    """
    left_out: Counter[str] = Counter()
    seen: set[tuple[int, int]] = set()
    links: list[Path] = []
    yield from _walk(folder, seen, links, left_out)
    for link in links:  # grows while linked folders are read
        yield from _walk(link, seen, links, left_out)
    if left_out:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(left_out.items()))
        logger.warning("%s: %d image files are left out, because their formats are not read: %s", folder, left_out.total(), kinds)


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - a `Path` for each name would take most of the time


def _walk(root: Path, seen: set[tuple[int, int]], links: list[Path], left_out: Counter[str]) -> Iterator[Path]:
    """Yield the images below one folder, and append the linked folders to `links`."""
    levels = [(Path(), iter([str(root)]), {str(root)})]  # no recursion: folders may be nested more deeply than Python's stack
    while levels:
        folder, names, folders = levels[-1]
        if (name := next(names, None)) is None:
            levels.pop()
        elif name not in folders:
            yield folder / name
        else:
            path = folder / name
            try:
                status = path.stat()
                if (status.st_dev, status.st_ino) not in seen:
                    seen.add((status.st_dev, status.st_ino))
                    levels.append((path, *_contents(path, links, left_out)))
            except OSError:
                if path == root and root not in links:
                    raise
                yield path


def _contents(folder: Path, links: list[Path], left_out: Counter[str]) -> tuple[Iterator[str], set[str]]:
    """Return the sorted names of a folder's images and subfolders, and the names of its subfolders."""
    names: list[str] = []
    folders: set[str] = set()
    linked: list[Path] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            suffix = _suffix(entry.name)
            if entry.name.startswith("."):
                continue
            kind = _kind(entry)
            if kind == "folder" and entry.is_symlink():
                linked.append(folder / entry.name)
            elif kind == "folder":
                folders.add(entry.name)
                names.append(entry.name)
            elif suffix in SUFFIXES and (kind != "other" or _leads_nowhere(entry)):
                names.append(entry.name)
            elif suffix in LEFT_OUT_SUFFIXES:
                left_out[suffix] += 1
    links += sorted(linked)
    return iter(sorted(names)), folders


def _kind(entry: os.DirEntry[str]) -> Literal["file", "folder", "other", "unknown"]:
    """Return what an entry is. A broken link, a pipe or a device is "other"; "unknown" is one that cannot be examined."""
    try:
        return "folder" if entry.is_dir() else "file" if entry.is_file() else "other"
    except OSError as error:
        return "other" if error.errno in NO_FILE else "unknown"


def _leads_nowhere(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and not os.path.exists(entry)  # noqa: PTH110 - False for an error


def expand(names: Sequence[str]) -> list[str]:
    """Return the paths of the images that names mean, each once.

    A name that is no file, folder or glob pattern is returned unchanged: reading it fails later, and makes an error row. The same applies
    to a name that the system refuses, for example because it is too long.

    Raises:
        RequestError: A folder or a glob pattern has no image, or a folder cannot be read.
    """
    paths: list[str] = []
    for name in names:
        if is_folder(name):
            images = _images_in(name)
        elif glob.has_magic(name) and not os.path.exists(name):  # noqa: PTH110 - Path.exists raises an error for a name that is too long
            images = sorted(filter(is_input, matches(name)))
        else:
            images = [name]
        if not images:
            raise RequestError(f"{name}: no images here")
        paths += images
    return list(dict.fromkeys(paths))


def matches(pattern: str) -> list[str]:
    """Return the paths that a glob pattern matches, each once. `**` is any number of folders that are not hidden.

    A folder counts once, by its own path rather than by a link's, so links that make a circle do no harm.
    """
    if (any_folders := ANY_FOLDERS.search(pattern)) is None:
        return glob.glob(pattern)  # noqa: PTH207 - Path.glob refuses absolute patterns
    start, rest = pattern[: any_folders.start()], pattern[any_folders.end() :] or "*"
    folders = _folders_below(glob.glob(start) if start else [""])  # noqa: PTH207
    return list(dict.fromkeys(match for folder in folders for match in matches(os.path.join(glob.escape(folder), rest))))  # noqa: PTH118


def _folders_below(roots: Iterable[str]) -> Iterator[str]:
    """Yield folders and their subfolders, each real folder once; those behind links come last."""
    seen: set[tuple[int, int]] = set()
    folders: list[str] = []
    links: list[str] = []

    def add(names: Iterable[str]) -> None:
        for name in sorted(names):
            (links if os.path.islink(name.removesuffix(os.sep)) else folders).append(name)  # noqa: PTH114 - see is_folder

    add(roots)
    while folders or links:
        folder = (folders or links).pop(0)
        try:
            status = os.stat(folder or os.curdir)  # noqa: PTH116 - see is_folder
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            yield folder
            with os.scandir(folder or os.curdir) as entries:
                add(os.path.join(folder, each.name) for each in entries if not each.name.startswith(".") and _kind(each) == "folder")  # noqa: PTH118
        except OSError as error:
            logger.warning("%s: cannot be listed: %s", folder, error.strerror)


def _images_in(folder: str) -> list[str]:
    try:
        return [str(path) for path in in_folder(Path(folder))]
    except OSError as error:
        raise RequestError(f"{folder}: cannot be listed: {error.strerror}; correct this and try again") from error


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
    first = True
    try:
        opened: Any = nullcontext(sys.stdin.buffer) if source == "-" else Path(source).open("rb")  # noqa: SIM115 - the with statement closes it
        with opened as stream:
            while block := stream.read1(BLOCK_BYTES):  # read1 returns the available bytes: the list may still be written
                rest += block.removeprefix(codecs.BOM_UTF8) if first else block
                first = False
                separator = separator or next((byte for byte in (b"\0", b"\n") if byte in rest), b"")
                *paths, rest = rest.split(separator) if separator else (rest,)
                if (longest := max(map(len, (*paths, rest)))) > MAX_PATH_BYTES:
                    raise RequestError(f"{source}: is not a list of paths: {longest:,} bytes without a line end")
                yield from map(_decoded, filter(bytes.strip, paths))
    except OSError as error:
        raise RequestError(f"{source}: cannot be read: {error.strerror}") from error
    if rest.strip():
        yield _decoded(rest)


def _decoded(line: bytes) -> str:
    """Return a path as text, without the carriage return of a Windows line end."""
    return line.removesuffix(b"\r").decode("utf-8", "surrogateescape")
