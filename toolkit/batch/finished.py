"""Read and write the settings of a finished output: the file `NAME.meta` beside the output NAME.

A resumed run compares them, and captions only the images that have changed since. The file has JSON lines. The first line contains the
settings and the sha256 of the output. Each further line contains one image, its size, its modification time and, if it could not be
captioned, its error. They are in a file of their own because each line of the output is the result of one image.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtimes.artifact.folder import sha256_of
from runtimes.pool.rows import Row, row_from_lines
from runtimes.storage.atomic_write import write_atomically

SCHEMA = 1

Stamp = list[int] | None


def meta_of(output: Path) -> Path:
    """Return the path of the settings file of an output."""
    return output.with_name(f"{output.name}.meta")


def stamp_of(image: str) -> Stamp:
    """Return [size in bytes, modification time in ns] of a file, which change when its content does; None if there is no file."""
    try:
        status = Path(image).stat()
    except (OSError, ValueError):
        return None
    return [status.st_size, status.st_mtime_ns]


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A finished output whose content is unchanged."""

    settings: Mapping[str, Any]
    stamps: Sequence[Stamp]
    errors: Mapping[int, Row]
    """Index of an image that could not be captioned → its error row."""
    lines: Callable[[], Iterator[Row | None]]
    """Return an iterator over the rows of the output, one per image; None for an error row, which text output leaves out."""


def write_meta(output: Path, settings: Mapping[str, Any], sha256: str, rows: Iterable[tuple[Row, Stamp]]) -> None:
    """Write the settings file of an output.

    Args:
        output: The output, complete.
        settings: JSON values that the captions depend on; "json" is true for JSON lines and false for text lines.
        sha256: Hash of the output.
        rows: The row of each image in order, with the stamp of the image when it was captioned.
    """
    head = {"meta": SCHEMA, "sha256": sha256, "settings": settings}
    images = ({**(row if "error" in row else {"image": row["image"]}), "stamp": stamp} for row, stamp in rows)
    write_atomically(meta_of(output), (json.dumps(line).encode() + b"\n" for line in (head, *images)))


def is_unchanged(output: Path) -> bool:
    """Return whether an output has a settings file, and its content is the one that the settings file describes."""
    try:
        with meta_of(output).open("rb") as stream:
            return bool(json.loads(stream.readline())["sha256"] == sha256_of(output))
    except (OSError, ValueError, TypeError, KeyError):
        return False


def read_finished(output: Path, images: Sequence[str]) -> Finished | None:
    """Read a finished output; return None if it has changed or is not the output of these images."""
    if not is_unchanged(output):
        return None
    stamps: list[Stamp] = []
    errors: dict[int, Row] = {}
    try:
        with meta_of(output).open("rb") as stream:
            head = json.loads(stream.readline())
            for index, line in enumerate(stream):
                row = json.loads(line)
                if index >= len(images) or row["image"] != images[index]:
                    return None
                stamps.append(row.pop("stamp"))
                if "error" in row:
                    errors[index] = row
        settings = head["settings"]
        as_json, questions = settings["json"], len(settings.get("questions", ()))
    except (OSError, ValueError, TypeError, KeyError):
        return None
    if head["meta"] != SCHEMA or len(stamps) != len(images):
        return None

    def lines() -> Iterator[Row | None]:
        with output.open("rb") as stream:
            for index, image in enumerate(images):
                if index in errors and not as_json:
                    yield None
                    continue
                lines = [stream.readline().decode() for _ in range(1 if index in errors else max(1, questions))]
                yield row_from_lines(image, lines, as_json=as_json, asked=questions > 0)

    return Finished(settings=settings, stamps=stamps, errors=errors, lines=lines)
