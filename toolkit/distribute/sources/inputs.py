"""List inputs of every kind. The suffix of a file decides its kind."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from runtimes.errors import DatasetError, first_line
from toolkit.distribute.entry import Entry, printable
from toolkit.distribute.sources.coco import list_captions_file
from toolkit.distribute.sources.files import file_entries, list_folder
from toolkit.distribute.sources.parquet import COLUMN, list_parquet
from toolkit.distribute.sources.tar import list_tar
from toolkit.distribute.stores.stores import Stores, expand
from toolkit.image_paths import read_list


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Inputs as the user names them, and how they are listed."""

    names: tuple[str, ...]
    """Folders, files and glob patterns."""
    from_file: str | None = None
    """File that lists more images, see `toolkit.image_paths.read_list`."""
    column: str = COLUMN
    """Column of the images in Parquet files."""
    images: str | None = None
    """Folder of the images of captions files; None: the folder of each file."""
    hashed: bool = True
    """Whether images are read and hashed when they are listed, so that equal ones are found."""

    def __str__(self) -> str:
        return ", ".join(filter(None, (*map(printable, self.names), self.from_file)))


COMPRESSED = frozenset({".gz", ".tgz", ".bz2", ".xz", ".zst", ".zip", ".7z"})
"""Suffixes of archives whose images cannot be read by their position."""

KINDS: dict[str, Callable[[str, Inputs, Stores], Iterator[Entry | str]]] = {
    ".tar": lambda path, inputs, stores: list_tar(path, stores.of(path), hashed=inputs.hashed),
    ".parquet": lambda path, inputs, stores: list_parquet(path, stores.of(path), inputs.column, hashed=inputs.hashed),
    ".json": lambda path, inputs, stores: list_captions_file(path, stores.of(path), inputs.images),
}
"""Suffix of a file that contains or names images → function that lists them. Any other file is an image."""


def list_inputs(inputs: Inputs, stores: Stores) -> Iterator[Entry]:
    """Yield the images of inputs, in the order of the inputs.

    Raises:
        DatasetError: An input is missing, has no image, or cannot be listed.
        RequestError: The list of paths cannot be read.
        MissingDependencyError: An input needs pyarrow.
    """
    return file_entries(_list_all(inputs, stores), stores, hashed=inputs.hashed)


def _list_all(inputs: Inputs, stores: Stores) -> Iterator[Entry | str]:
    for name in inputs.names:
        if PurePosixPath(name).suffix.lower() in COMPRESSED:
            raise DatasetError(name, "is compressed, and images are read by their position; decompress it to a .tar file or a folder")
        for path in expand(name, stores.of(name)):
            yield from _list_path(path, inputs, stores)
    if inputs.from_file is not None:
        yield from read_list(inputs.from_file)


def _list_path(path: str, inputs: Inputs, stores: Stores) -> Iterator[Entry | str]:
    store = stores.of(path)
    try:
        kind = store.kind(path)
        if kind is None:
            raise DatasetError(path, "no such file or folder; check the name")
        if kind == "folder":
            yield from list_folder(path, store)
        elif (list_kind := KINDS.get(PurePosixPath(path).suffix.lower())) is not None:
            yield from list_kind(path, inputs, stores)
        else:
            yield path
    except OSError as error:
        raise DatasetError(path, f"cannot be read: {first_line(error)}") from error
