"""The captions of a run that is not finished: `NAME.partial` beside the output NAME; settings and rows go in, and come out after any stop.

Its first line says what decides the captions, so that a resumed run cannot mix them; each further line is an image's row, with the size
and time of change that the image had. Rows are handed to the system batch by batch, so a killed process loses only the batch in the
making; they are synced every few seconds, so a power cut loses those. Whatever follows the last line that can be read is dropped. A journal
may also begin from a finished output, of whose images some have changed since: then their rows alone are missing.

Why not in NAME itself: a file under its final name would look finished, and could not be in the order of the images. Why not hidden:
a person who looks for the captions of a stopped run finds them, and may read them while it goes on.
"""

import json
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any, BinaryIO

from runtimes.errors import OutputError, RequestError
from runtimes.pool.rows import Row
from runtimes.storage.atomic_write import sync_folder
from toolkit.batch.finished import Finished, Stamp, stamp_of

SCHEMA = 1
SYNC_S = 5.0
NOT_YET = -1
IN_OUTPUT = -2
"""A row of the finished output, which the journal does not hold yet."""


def partial_of(output: Path) -> Path:
    """Return where the rows of an output wait for the others."""
    return output.with_name(f"{output.name}.partial")


class Journal:
    """The rows of `images` so far. One process has it at a time: the writer's lock of the output is held by whoever opens it."""

    def __init__(self, output: Path, images: Sequence[str], finished: Finished | None = None) -> None:
        """Take what an earlier run left: a journal, or else the finished output of these images.

        Raises:
            OutputError: It cannot be read.
            RequestError: It is something else.
        """
        self.path, self._output, self._images = partial_of(output), output, images
        self._places = {image: place for place, image in enumerate(images)}
        self._stamps = [stamp_of(image) for image in images]
        self._starts = array("q", [NOT_YET]) * len(images)  # of each image's line; rows stay on disk, so memory does not grow with them
        self._failed = bytearray(len(images))
        self._settings: Mapping[str, Any] | None = None
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
            for place, (now, then) in enumerate(zip(self._stamps, finished.stamps, strict=True)):
                if now == then:
                    self._starts[place], self._failed[place] = IN_OUTPUT, place in finished.errors

    @property
    def settings(self) -> Mapping[str, Any] | None:
        """What decides the captions, once it is known."""
        return self._settings

    @property
    def done(self) -> int:
        """Images that have a row."""
        return sum(start != NOT_YET for start in self._starts)

    @property
    def failed(self) -> int:
        """Images whose row is an error."""
        return sum(self._failed)

    def has(self, image: str) -> bool:
        """Whether an image has a row that was made of the file as it is now."""
        return self._starts[self._places[image]] != NOT_YET

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Say what decides the captions: written at first, compared when resumed.

        Raises:
            RequestError: The rows that are there were made otherwise; every difference is named.
            OutputError: It cannot be written.
        """
        if self._settings is not None:
            if differing := [name for name in settings if settings[name] != self._settings.get(name)]:
                told = "; ".join(f"{name} {self._settings.get(name)!r} then, {settings[name]!r} now" for name in differing)
                raise RequestError(
                    f"{self._output if self._finished else self.path}: was begun otherwise, and its captions would be mixed ({told}). "
                    "Resume with what it was begun with, or start again with --overwrite."
                )
            if self._finished is not None and self.done < len(self._images):
                self._restore(self._finished)
            return
        self._settings = settings
        self._write([{"journal": SCHEMA, **settings}])
        sync_folder(self.path.parent)

    def add(self, rows: Sequence[Row]) -> None:
        """Add the rows of a batch, all or none.

        Raises:
            OutputError: No room, no permission; the rows before stay.
        """
        starts = self._write([{**row, "stamp": self._stamps[self._places[row["image"]]]} for row in rows])
        for row, start in zip(rows, starts, strict=True):
            self._note(row, start)

    def rows(self) -> Iterator[Row]:
        """Yield the rows in the order of the images."""
        return (row for row, _ in self.stamped_rows())

    def stamped_rows(self) -> Iterator[tuple[Row, Stamp]]:
        """Yield the rows in the order of the images, and the stamp that each image had."""
        with self.path.open("rb") as stream:
            for start in self._starts:
                stream.seek(start)
                row = json.loads(stream.readline())
                yield row, row.pop("stamp")

    def close(self, *, remove: bool = False) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
        if remove:
            with suppress(OSError):  # a resumed run removes what stays: all is done
                self.path.unlink(missing_ok=True)
            sync_folder(self.path.parent)

    def _restore(self, finished: Finished) -> None:
        """Write the rows of the finished output whose images are unchanged."""
        self._write([{"journal": SCHEMA, **finished.settings}])
        for place, row in enumerate(finished.lines()):
            if self._starts[place] == IN_OUTPUT:
                self.add([row or finished.errors[place]])

    def _note(self, row: Row, start: int) -> None:
        place = self._places[row["image"]]
        self._starts[place], self._failed[place] = start, "error" in row

    def _read(self) -> None:
        """Take what an earlier run left, up to the last line that can be read."""
        with self.path.open("rb") as stream:
            for line in stream:
                row = _parsed(line)
                if row is None:
                    break
                if self._settings is None:
                    if row.get("journal") != SCHEMA:
                        raise RequestError(f"{self.path}: is not what an unfinished run of this toolkit leaves; move it away")
                    self._settings = {name: value for name, value in row.items() if name != "journal"}
                elif (place := self._places.get(row.get("image", ""))) is not None and row.get("stamp") == self._stamps[place]:
                    self._note(row, self._end)
                self._end += len(line)

    def _write(self, rows: Sequence[Row]) -> list[int]:
        """Append lines; return where each starts."""
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
                os.fsync(self._file.fileno())
                self._synced_at = monotonic()
        except OSError as error:
            kept = f"; the captions so far are in {self.path.name}, and --resume goes on" if self._end else ""
            if self._end == 0:
                self.close(remove=True)
            raise OutputError(self._output, f"{error.strerror or error}{kept}") from error
        self._end += sum(map(len, lines))
        return starts


def _parsed(line: bytes) -> Mapping[str, Any] | None:
    """Return a whole line's row, or None for one that was not written to its end."""
    try:
        row = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None
