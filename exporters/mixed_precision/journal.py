"""Store the results of a long search as lines of JSON, so that a stopped search continues where it ended.

The first line contains the settings that the results depend on. Each further line is one result with its key.
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from runtimes.artifact import json_dataclass
from runtimes.errors import OutputError, RequestError
from runtimes.storage.atomic_write import locked, write_atomically


class DriftJournal:
    """Results by key, in a file."""

    def __init__(self, path: Path, settings: Mapping[str, Any], *, overwrite: bool = False) -> None:
        """Read the results of an earlier run with the same settings, or start a new file.

        Args:
            path: The file.
            settings: JSON values.
            overwrite: Start a new file if the settings differ.

        Raises:
            RequestError: The file has other settings or is no journal.
            OutputError: The file cannot be read or written.
        """
        self._path, self._results = path, dict[str, Any]()
        wanted = json.loads(json_dataclass.canonical_json({"settings": settings}))
        try:
            lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        except OSError as error:
            raise OutputError(path, error.strerror or str(error)) from error
        complete = [line for line in lines if line.endswith(b"\n")]
        if complete and _parsed(complete[0]) != wanted:
            if not overwrite:
                raise RequestError(f"{path}: was written with other settings, or by another program; move it away, or use --overwrite")
            complete = []
        for row in map(_parsed, complete[1:]):
            if row is not None:
                self._results[row["key"]] = row["result"]
        self._start: bytes | None = b"".join(complete) or json_dataclass.canonical_json(wanted) + b"\n"
        """What the file contains before the first new result; None after it is written."""

    def result(self, key: str, compute: Callable[[], Any]) -> Any:  # noqa: ANN401 - a JSON value
        """Return a stored result, or compute and store it.

        Args:
            key: Names the result.
            compute: Returns a JSON value.

        Raises:
            OutputError: The file cannot be written.
        """
        if key not in self._results:
            result = compute()
            try:
                if self._start is not None:
                    write_atomically(self._path, self._start)
                    self._start = None
                with self._path.open("ab") as stream:
                    stream.write(json_dataclass.canonical_json({"key": key, "result": result}) + b"\n")
            except OSError as error:
                raise OutputError(self._path, error.strerror or str(error)) from error
            self._results[key] = json.loads(json.dumps(result))
        return self._results[key]


@contextlib.contextmanager
def open_journal(path: Path, settings: Mapping[str, Any], *, overwrite: bool = False) -> Iterator[DriftJournal]:
    """Lock a journal's file against other processes and yield the journal.

    Args:
        path: The file.
        settings: See `DriftJournal`.
        overwrite: See `DriftJournal`.

    Raises:
        RequestError: See `DriftJournal`.
        OutputError: See `DriftJournal`, or another process has the lock.
    """
    with locked(path):
        yield DriftJournal(path, settings, overwrite=overwrite)


def _parsed(line: bytes) -> Any:  # noqa: ANN401 - a JSON value
    """Return the value of a line; None if it is not JSON."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
