"""Check that the libraries of a page are installed, and write its file atomically."""

from importlib import import_module
from pathlib import Path

from runtimes.errors import MissingDependencyError, OutputError
from runtimes.storage.atomic_write import locked, write_atomically


def require_report_extra() -> None:
    """Check that the packages of the extra `report` are installed; call it before a long measurement.

    Raises:
        MissingDependencyError: A package is not installed.
    """
    try:
        import_module("toolkit.report.page")
    except ModuleNotFoundError as error:
        raise MissingDependencyError(error.name or "a package", "a page", "report") from error


def write_text(path: Path, text: str) -> None:
    """Write a report with an atomic rename.

    Raises:
        OutputError: The file cannot be written.
    """
    with locked(path):
        try:
            write_atomically(path, text.encode("utf-8", "replace"))
        except OSError as error:
            raise OutputError(path, error.strerror or str(error)) from error
