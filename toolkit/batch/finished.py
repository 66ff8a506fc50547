"""What a finished output was made with: `NAME.meta` beside the output NAME, which lets a resumed run see that nothing is left to do.

JSON lines. The first one holds the settings and the sha256 of the output; each further one an image with its size and time of change, and,
of one that could not be captioned, its error. The output itself has no place for them: its lines are results, and text lines are nothing
else. Rows of a finished output are read from it again where some images have changed since and the others need not be captioned again.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtimes.artifact.folder import sha256_of
from runtimes.pool.rows import Row
from runtimes.storage.atomic_write import write_atomically

SCHEMA = 1

Stamp = list[int] | None


def meta_of(output: Path) -> Path:
    """Return where the settings of a finished output are."""
    return output.with_name(f"{output.name}.meta")


def stamp_of(image: str) -> Stamp:
    """Return size and time of change in ns; an image that has others is another image. None where there is no file."""
    try:
        found = Path(image).stat()
    except (OSError, ValueError):
        return None
    return [found.st_size, found.st_mtime_ns]


@dataclass(frozen=True, kw_only=True)
class Finished:
    """An output that is as it was when its last row was written."""

    settings: Mapping[str, Any]
    stamps: Sequence[Stamp]
    errors: Mapping[int, Row]
    """Index of an image → its row, of those that could not be captioned."""
    lines: Callable[[], Iterator[Row | None]]
    """Makes an iterator over the output's rows, one per image; None for an error that the output does not show."""


def write_meta(output: Path, settings: Mapping[str, Any], sha256: str, rows: Iterable[tuple[Row, Stamp]]) -> None:
    """Write the settings beside an output that was just written.

    Args:
        output: The output.
        settings: What decides the captions, JSON values; "json" tells JSON lines from text lines.
        sha256: Of the output.
        rows: Of each image in order, with the stamp that it had when it was captioned.
    """
    head = {"meta": SCHEMA, "sha256": sha256, "settings": settings}
    images = ({**(row if "error" in row else {"image": row["image"]}), "stamp": stamp} for row, stamp in rows)
    write_atomically(meta_of(output), (json.dumps(line).encode() + b"\n" for line in (head, *images)))


def made_here(output: Path) -> bool:
    """Return whether an output is one that was finished before, unchanged since."""
    try:
        with meta_of(output).open("rb") as stream:
            return bool(json.loads(stream.readline())["sha256"] == sha256_of(output))
    except (OSError, ValueError, TypeError, KeyError):
        return False


def read_finished(output: Path, images: Sequence[str]) -> Finished | None:
    """Return what an output was made with; None if it is not the unchanged output of these images."""
    if not made_here(output):
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
        as_json = settings["json"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    if head["meta"] != SCHEMA or len(stamps) != len(images):
        return None

    def lines() -> Iterator[Row | None]:
        with output.open("rb") as stream:
            for index, image in enumerate(images):
                if as_json:
                    yield json.loads(stream.readline())
                else:
                    yield (
                        None if index in errors else {"image": image, "caption": stream.readline().decode().rstrip("\n").partition("\t")[2]}
                    )

    return Finished(settings=settings, stamps=stamps, errors=errors, lines=lines)
