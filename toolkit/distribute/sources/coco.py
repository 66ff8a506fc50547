"""List the images of a captions file: COCO's, or `{"images": [{"file"}]}`."""

import json
from collections.abc import Iterator
from typing import Final

from runtimes.errors import DatasetError
from toolkit.distribute.stores.s3 import S3
from toolkit.distribute.stores.store import Store

NAME_FIELDS: Final = ("file_name", "file")
"""Fields with the name of an image, in COCO's files and in those of `toolkit bench`."""


def list_captions_file(path: str, store: Store, images: str | None) -> Iterator[str]:
    """Yield the paths of the images of a captions file, in its order.

    Args:
        path: Name of the file.
        store: Its store.
        images: Folder of the images; None: the folder of the file.

    Raises:
        DatasetError: The file is no captions file.
        OSError: The file cannot be read.
    """
    with store.open(path) as file:
        content = file.read()
    try:
        names = [next(entry[field] for field in NAME_FIELDS if field in entry) for entry in json.loads(content)["images"]]
    except (ValueError, TypeError, KeyError, RecursionError, StopIteration) as error:
        raise DatasetError(path, "is no captions file: it has no list `images` with `file_name` or `file`") from error
    if wrong := [name for name in names if not isinstance(name, str)]:
        raise DatasetError(path, f"is no captions file: a file name is {wrong[0]!r}")
    if not names:
        raise DatasetError(path, "has no images")
    folder = images if images is not None else path.rpartition("/")[0]
    return (name if name.startswith(("/", S3)) or not folder else f"{folder.rstrip('/')}/{name}" for name in names)
