"""The records of the results page on quality: one JSON file per section, with flat rows.

`recipes` is the exception: its file has the records of `toolkit bench` (`recipes.jsonl`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from toolkit.bench.runner import host_facts
from toolkit.records.source_commit import source_commit

Row = Mapping[str, Any]
"""Numbers, texts, booleans or None by name. The columns of `tests.quality.page` name the keys of each section."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """One section of the page."""

    section: str
    """Name of the section and, with .json, of its file."""
    checkpoint: str
    dataset: str
    images: int
    """Number of images that the figures are computed from."""
    host: str
    measured_at: str
    commit: str | None
    command: str
    """What a user types to measure it again."""
    notes: tuple[str, ...]
    """Sentences below the table."""
    rows: tuple[Row, ...]


def write_section(
    path: Path, *, checkpoint: str, dataset: str, images: int, command: str, rows: Sequence[Row], notes: Sequence[str] = ()
) -> None:
    """Write the section that a file is named after, with this host, the time and the commit."""
    host = host_facts()
    section = {
        "section": path.stem,
        "checkpoint": checkpoint,
        "dataset": dataset,
        "images": images,
        "host": f"{host.cpu} ({', '.join(host.cpu_features)}), {host.cores} cores",
        "measured_at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "commit": source_commit(),
        "command": command,
        "notes": list(notes),
        "rows": [dict(row) for row in rows],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(section, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_section(path: Path) -> Section | None:
    """Return a section; None if it was not measured."""
    if not path.is_file():
        return None
    fields = json.loads(path.read_text(encoding="utf-8"))
    return Section(**fields | {"notes": tuple(fields["notes"]), "rows": tuple(fields["rows"])})
