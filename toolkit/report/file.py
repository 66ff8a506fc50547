"""The page as a file: its libraries are asked for before long work, its text is written whole or not at all."""

from importlib import import_module
from pathlib import Path

from runtimes.errors import MissingDependencyError, OutputError
from runtimes.storage.atomic_write import write_atomically


def need_libraries() -> None:
    """Make sure that a page can be made.

    Raises:
        MissingDependencyError: A package of the extra is not installed.
    """
    try:
        import_module("toolkit.report.page")
    except ModuleNotFoundError as error:
        raise MissingDependencyError(error.name or "a package", "a page", "report") from error


def write_text(path: Path, text: str) -> None:
    """Write a report.

    Raises:
        OutputError: No room, no permission.
    """
    try:
        write_atomically(path, text.encode("utf-8", "replace"))
    except OSError as error:
        raise OutputError(path, error.strerror or str(error)) from error
