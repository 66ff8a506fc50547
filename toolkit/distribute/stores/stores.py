"""The stores of a run, and the inputs that a pattern matches in them."""

import os
from glob import has_magic

from runtimes.errors import DatasetError, first_line
from toolkit.distribute.stores.local import LocalStore
from toolkit.distribute.stores.s3 import S3, S3Store
from toolkit.distribute.stores.store import Store


class Stores:
    """The stores of a run.

    Args:
        endpoint: Address of the S3 server, see `S3Store`.
        base: Folder where relative names of local files start; the working directory by default.
    """

    def __init__(self, endpoint: str | None = None, base: str = "") -> None:
        self._local, self._s3 = LocalStore(base), S3Store(endpoint)

    def of(self, path: str) -> Store:
        """Return the store of a name."""
        return self._s3 if path.startswith(S3) else self._local


def expand(name: str, store: Store) -> list[str]:
    """Return what an input names: itself, or the files that its glob pattern matches.

    Raises:
        DatasetError: The pattern matches nothing, or the store cannot be read.
    """
    if not has_magic(name) or (not name.startswith(S3) and os.path.exists(name)):  # noqa: PTH110 - names that the system refuses
        return [name]
    try:
        matches = store.matches(name)
    except OSError as error:
        raise DatasetError(name, f"cannot be listed: {first_line(error)}") from error
    if not matches:
        raise DatasetError(name, "matches no file")
    return matches
