"""Throughput records: the time of a job in captioners that share the cores, one JSON line per case, setting and repeat."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runtimes.artifact import json_dataclass
from runtimes.errors import OutputError, RecordError
from runtimes.storage.atomic_write import write_atomically
from toolkit.records.record import HostFacts
from toolkit.records.record_file import MAX_BYTES


@dataclass(frozen=True, kw_only=True)
class ThroughputRecord:
    """One job: all images of a dataset, from the first batch to the last caption."""

    case: str
    """Name of the case; see `toolkit.records.record.Record`."""
    repeat: int
    """Number of the repeat, from 0."""
    host: HostFacts
    """The machine."""
    dataset: str
    """Name of the dataset."""
    images: int
    """Number of captioned images."""
    forced_tokens: int | None
    """Tokens that each caption generates; None: the model ends its captions."""
    processes: int
    """Captioners, each in its own process; for a case with `streams`, threads of one process that caption at once."""
    threads: int
    """CPU threads of each captioner."""
    batch_size: int
    """Images per run of the model."""
    seconds: float | None = None
    """Time of the job, without loading and warm-up; None if it failed."""
    pss_bytes: int | None = None
    """Proportional set size of all processes after the job: shared pages count once. None if unknown."""
    error: str | None = None
    """Why the case failed."""
    measured_at: str | None = None
    """Start in UTC."""
    commit: str | None = None
    """Commit of the toolkit's source tree."""


def write_throughput(path: Path, records: Sequence[ThroughputRecord]) -> None:
    """Write records with an atomic rename.

    Raises:
        OutputError: The file cannot be written.
    """
    try:
        write_atomically(path, (json_dataclass.canonical_json(json_dataclass.dump(record)) + b"\n" for record in records))
    except OSError as error:
        raise OutputError(path, error.strerror or str(error)) from error


def read_throughput(path: Path) -> list[ThroughputRecord]:
    """Read a file of throughput records.

    Raises:
        RecordError: The file or a line is invalid.
    """
    try:
        with path.open("rb") as stream:
            lines = stream.read(MAX_BYTES).splitlines()
    except OSError as error:
        raise RecordError(str(path), f"cannot be read: {error.strerror}") from error
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record, problems = json_dataclass.load(ThroughputRecord, json_dataclass.parse(line))
        except ValueError as error:
            raise RecordError(f"{path}:{number}", f"not JSON ({error})") from error
        if record is None:
            raise RecordError(f"{path}:{number}", "; ".join(problems))
        records.append(record)
    return records
