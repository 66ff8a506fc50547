"""Write and read files of benchmark records, one line of JSON per record."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from runtimes.artifact import json_dataclass
from runtimes.errors import OutputError, RecordError
from runtimes.storage.atomic_write import write_atomically
from toolkit.records.record import SCHEMA, Record
from toolkit.records.settings import Setting, setting_of

MAX_BYTES = 1 << 30
"""Size limit of a file. A line has a few kB, so this is enough for hundreds of thousands of cases."""
MAX_NUMBER = 1e18
"""Larger numbers are refused, because no measurement reaches them."""

SIGNED = ("log_probability", "similarities")
"""Names of numbers that may be negative."""


def to_lines(records: Sequence[Record]) -> bytes:
    """Return the content of a records file: one line of JSON per record."""
    return b"".join(json_dataclass.canonical_json(json_dataclass.dump(record)) + b"\n" for record in records)


def write_records(path: Path, records: Sequence[Record]) -> None:
    """Write records with an atomic rename, so that the file is complete at any time.

    Raises:
        OutputError: The file cannot be written.
    """
    try:
        write_atomically(path, to_lines(records))
    except OSError as error:
        raise OutputError(path, error.strerror or str(error)) from error


def read_records(path: Path) -> list[Record]:
    """Read and check a records file.

    Raises:
        RecordError: The file or a line is invalid. The message has the line's number and the reason.
    """
    try:
        with path.open("rb") as stream:
            lines = stream.read(MAX_BYTES).splitlines()
    except OSError as error:
        raise RecordError(str(path), f"cannot be read: {error.strerror}") from error
    records: list[Record] = []
    first_lines: dict[tuple[str, Setting, int], int] = {}
    for number, line in enumerate(lines, start=1):
        try:
            parsed = json_dataclass.parse(line)
        except ValueError as error:
            raise RecordError(f"{path}:{number}", f"not JSON ({error})") from error
        if isinstance(parsed, dict) and isinstance(parsed.get("schema"), int) and parsed["schema"] != SCHEMA:
            remedy = "update blip-toolkit" if parsed["schema"] > SCHEMA else "measure again"
            raise RecordError(f"{path}:{number}", f"has record schema {parsed['schema']}, but this toolkit reads {SCHEMA}; {remedy}")
        if isinstance(parsed, dict) and "processes" in parsed:
            raise RecordError(f"{path}:{number}", "is a record of toolkit bench --throughput, whose table that command prints")
        record, problems = json_dataclass.load(Record, parsed)
        if record is None:
            raise RecordError(f"{path}:{number}", "; ".join(problems))
        if wrong := next(_out_of_range(parsed), None):
            raise RecordError(f"{path}:{number}", f"{wrong[0]} is {wrong[1]}, which is out of range")
        images = record.workload.images
        if record.error is None and (
            record.subject is None
            or len(record.times) != record.workload.runs
            or len(record.quality) not in (0, images)
            or (record.quality and all(image.error is not None for image in record.quality))
        ):
            raise RecordError(f"{path}:{number}", f"has neither an error nor the measurements of {images} images")
        if (earlier := first_lines.setdefault((record.case, setting_of(record), record.repeat), number)) != number:
            raise RecordError(f"{path}:{number}", f"is the same case, setting and repeat as line {earlier}; keep one run per file")
        records.append(record)
    if not records:
        raise RecordError(str(path), "contains no records")
    return records


def _out_of_range(value: object, name: str = "") -> Iterator[tuple[str, object]]:
    """Yield name and value of each number in a JSON value that is negative or too large, unless it may be negative."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _out_of_range(item, key)
    elif isinstance(value, list):
        for item in value:
            yield from _out_of_range(item, name)
    elif isinstance(value, int | float) and not (-MAX_NUMBER if name in SIGNED else 0) <= value <= MAX_NUMBER:
        yield name, value
