"""Store the captions of an unfinished run: the file `NAME.partial` beside the output NAME.

Its first line contains the settings that the captions depend on, so that a resumed run cannot mix captions of different settings. Each
further line is the row of one image, with the size and modification time of that image. One line may have the number of processes and their
settings, which a resumed run uses again.

Rows are written after each batch, so a killed process loses the current batch. The file is synced every few seconds, so a power failure
loses the last seconds. When a journal is read, everything after the last complete line is dropped. A journal can start from a finished
output some of whose images have changed: then only the rows of those images are missing.

The rows are not written to NAME, because a file with the final name would look finished and its rows would not be in the order of the
images. The name is visible, so that a user finds the captions of a stopped run and can read them during a run.
"""

import json
from array import array
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import suppress
from pathlib import Path
from time import monotonic
from types import MappingProxyType
from typing import Any, BinaryIO

from runtimes.errors import EnvironmentFailedError, OutputError, RequestError
from runtimes.pool.rows import Row
from runtimes.storage.atomic_write import sync_file, sync_folder
from toolkit.batch.finished import Finished, Stamp, stamp_of

SCHEMA = 1
SYNC_S = 5.0
MISSING = -1
IN_OUTPUT = -2
"""The row is in the finished output, and not yet in the journal."""


def partial_of(output: Path) -> Path:
    """Return the path of the journal of an output."""
    return output.with_name(f"{output.name}.partial")


class Journal:
    """The rows of `images` that are captioned so far. The caller must own the writer's lock of the output: one process at a time."""

    def __init__(self, output: Path, images: Sequence[str], finished: Finished | None = None, retry_errors: Set[str] = frozenset()) -> None:
        """Read the journal of an earlier run or, if there is none, the finished output of these images.

        Args:
            output: Path of the output; the journal is beside it.
            images: Each image once, in the order of the output.
            finished: The finished output of these images, to start from.
            retry_errors: Codes of error rows that are dropped, besides ENVIRONMENT_FAILED: their images have no row.

        Raises:
            OutputError: The journal cannot be read.
            RequestError: The file is no journal.
        """
        self.path, self._output, self._images = partial_of(output), output, images
        self._indices = {image: index for index, image in enumerate(images)}
        self._stamps = [stamp_of(image) for image in images]
        self._starts = array("q", [MISSING]) * len(images)  # file offset of each row: the rows stay on disk, to save memory
        self._failed = bytearray(len(images))
        self._retry_errors = {*retry_errors, EnvironmentFailedError.code}
        self._settings: Mapping[str, Any] | None = None
        self.schedule: Mapping[str, Any] | None = None
        """The value of `choose` of an earlier run; None if there was none."""
        self._finished: Finished | None = None
        self._end = 0
        self._synced_at = monotonic()
        self._file: BinaryIO | None = None
        if self.path.exists():
            try:
                self._read()
            except OSError as error:
                raise OutputError(output, f"{self.path.name} cannot be read ({error.strerror})") from error
        elif finished is not None:
            self._finished, self._settings = finished, finished.settings
            for index, (now, then) in enumerate(zip(self._stamps, finished.stamps, strict=True)):
                if now == then and finished.errors.get(index, {}).get("code") not in self._retry_errors:
                    self._starts[index], self._failed[index] = IN_OUTPUT, index in finished.errors

    @property
    def settings(self) -> Mapping[str, Any] | None:
        """The settings that the captions depend on; None before `begin` in a new journal."""
        return self._settings

    @property
    def done(self) -> int:
        """Number of images that have a row."""
        return sum(start != MISSING for start in self._starts)

    @property
    def failed(self) -> int:
        """Number of images whose row is an error."""
        return sum(self._failed)

    def has(self, image: str) -> bool:
        """Return whether an image has a row, made from the current content of its file."""
        return self._starts[self._indices[image]] != MISSING

    def begin(self, settings: Mapping[str, Any], absent: Mapping[str, Any] = MappingProxyType({})) -> None:
        """Write the settings to a new journal, or compare them with those of an existing one.

        Args:
            settings: The settings of this run.
            absent: Values of settings that an older version does not write, since it had no such option.

        Raises:
            RequestError: The existing rows have other settings; the message names every difference. Or a setting is neither in the journal
                nor in `absent`.
            OutputError: The journal cannot be written.
        """
        if self._settings is not None:
            then = {**absent, **self._settings}
            if missing := sorted(settings.keys() - then.keys()):
                raise RequestError(
                    f"{self.path}: was written by another version of this toolkit, without {', '.join(missing)}. "
                    "Finish it with that version, or start again with --overwrite."
                )
            if differing := [name for name in settings if settings[name] != then[name]]:
                changes = "; ".join(f"{name} {then[name]!r} then, {settings[name]!r} now" for name in differing)
                raise RequestError(
                    f"{self._output if self._finished else self.path}: was started with other settings ({changes}). "
                    "Resume with the same settings, or start again with --overwrite."
                )
            if self._finished is not None and self.done < len(self._images):
                self._restore(self._finished)
            return
        self._settings = settings
        self._write([{"journal": SCHEMA, **settings}])
        sync_folder(self.path.parent)

    def choose(self, schedule: Mapping[str, Any]) -> None:
        """Append how the captioners share the cores.

        Raises:
            OutputError: The journal cannot be written.
        """
        self.schedule = schedule
        self._write([{"schedule": schedule}])

    def add(self, rows: Sequence[Row]) -> None:
        """Append the rows of a batch, all or none.

        Raises:
            OutputError: The disk is full or not writable; earlier rows stay.
        """
        starts = self._write([{**row, "stamp": self._stamps[self._indices[row["image"]]]} for row in rows])
        for row, start in zip(rows, starts, strict=True):
            self._index(row, start)

    def rows(self) -> Iterator[Row]:
        """Yield the rows in the order of the images."""
        return (row for row, _ in self.stamped_rows())

    def stamped_rows(self) -> Iterator[tuple[Row, Stamp]]:
        """Yield the rows in the order of the images, each with the stamp that its image had."""
        with self.path.open("rb") as stream:
            for start in self._starts:
                stream.seek(start)
                row = json.loads(stream.readline())
                yield row, row.pop("stamp")

    def close(self, *, remove: bool = False) -> None:
        """Close the file, and delete it if `remove` is true."""
        if self._file is not None:
            self._file.close()
        if remove:
            with suppress(OSError):  # the output is complete; a resumed run deletes the journal
                self.path.unlink(missing_ok=True)
            sync_folder(self.path.parent)

    def _restore(self, finished: Finished) -> None:
        """Copy the rows of unchanged images from the finished output."""
        self._write([{"journal": SCHEMA, **finished.settings}])
        for index, row in enumerate(finished.lines()):
            if self._starts[index] == IN_OUTPUT:
                self.add([row or finished.errors[index]])

    def _index(self, row: Row, start: int) -> None:
        index = self._indices[row["image"]]
        self._starts[index], self._failed[index] = start, "error" in row

    def _read(self) -> None:
        """Read the journal up to the last complete line."""
        with self.path.open("rb") as stream:
            for line in stream:
                row = _parsed(line)
                if row is None:
                    break
                if self._settings is None:
                    if row.get("journal") != SCHEMA:
                        raise RequestError(f"{self.path}: is not the journal of an unfinished run of this toolkit; move it away")
                    self._settings = {name: value for name, value in row.items() if name != "journal"}
                elif "schedule" in row:
                    self.schedule = row["schedule"]
                elif (index := self._indices.get(row.get("image", ""))) is not None and row.get("stamp") == self._stamps[index]:
                    if row.get("code") in self._retry_errors:
                        self._starts[index], self._failed[index] = MISSING, False
                    else:
                        self._index(row, self._end)
                self._end += len(line)

    def _write(self, rows: Sequence[Row]) -> list[int]:
        """Append rows as lines; return the file offset of each."""
        lines = [json.dumps(row).encode() + b"\n" for row in rows]
        starts = [self._end + sum(map(len, lines[:number])) for number in range(len(lines))]
        try:
            if self._file is None:
                self._file = self.path.open("r+b" if self.path.exists() else "xb", buffering=0)
                self._file.truncate(self._end)
            self._file.seek(self._end)
            content = memoryview(b"".join(lines))
            while content:
                content = content[self._file.write(content) :]
            if monotonic() - self._synced_at > SYNC_S or self._end == 0:
                sync_file(self._file.fileno(), self.path)
                self._synced_at = monotonic()
        except OSError as error:
            kept = f"; the captions so far are in {self.path.name}; continue with --resume" if self._end else ""
            if self._end == 0:
                self.close(remove=True)
            raise OutputError(self._output, f"{error.strerror or error}{kept}") from error
        self._end += sum(map(len, lines))
        return starts


def _parsed(line: bytes) -> Mapping[str, Any] | None:
    """Return the row of a line, or None if the line is incomplete."""
    try:
        row = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None
