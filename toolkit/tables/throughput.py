"""Tables of throughput records: images per second by case and setting."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from runtimes.artifact import json_dataclass
from toolkit.records.throughput import ThroughputRecord
from toolkit.stats.rows import Row
from toolkit.tables.columns import Column, number
from toolkit.tables.markdown import table

KEYS = ("case", "processes", "threads", "batch_size", "images_per_s", "images_per_s_low", "images_per_s_high", "pss_bytes", "error")

COLUMNS = (
    Column("case", lambda row: str(row["case"])),
    Column("processes", lambda row: str(row["processes"])),
    Column("threads", lambda row: str(row["threads"])),
    Column("batch", lambda row: str(row["batch_size"])),
    Column(
        "images/s", lambda row: "{images_per_s:.2f} [{images_per_s_low:.2f}, {images_per_s_high:.2f}]".format(**row), highest="images_per_s"
    ),
    Column("PSS MB", number("pss_bytes", "{:.0f}", 1e-6)),
)


def throughput_rows(records: Sequence[ThroughputRecord]) -> list[Row]:
    """Return one row per case and setting, with the median, lowest and highest rate of the repeats."""
    groups: dict[tuple[Any, ...], list[ThroughputRecord]] = {}
    for record in records:
        groups.setdefault((record.case, record.processes, record.threads, record.batch_size), []).append(record)
    rows = []
    for key, group in groups.items():
        rates = [record.images / record.seconds for record in group if record.seconds]
        sizes = [record.pss_bytes for record in group if record.pss_bytes is not None]
        figures = (median(rates), min(rates), max(rates)) if rates else (None, None, None)
        error = next((record.error for record in group if record.error), None)
        rows.append(dict(zip(KEYS, (*key, *figures, median(sizes) if sizes else None, error), strict=True)))
    return rows


def render_markdown(records: Sequence[ThroughputRecord]) -> str:
    """Return a table, the failures and the facts of the run."""
    rows, first = throughput_rows(records), records[0]
    failures = dict.fromkeys(f"- {row['case']}: {row['error']}" for row in rows if row["error"])
    tokens = "natural length" if first.forced_tokens is None else f"{first.forced_tokens} tokens"
    facts = (
        "Threads: of each process. Batch: images per run. "
        f"Images/s: median [lowest, highest] of {max(record.repeat for record in records) + 1} repeats. "
        f"A job is {first.images} images of {first.dataset}, {tokens}. "
        f"{first.host.cpu} ({', '.join(first.host.cpu_features)}), {first.host.cores} cores. "
        "PSS: memory of all processes; pages that they share count once."
    )
    parts = [table(COLUMNS, [row for row in rows if row["images_per_s"] is not None]), *(["Failed:", *failures] if failures else []), facts]
    return "\n\n".join(parts) + "\n"


def render_csv(records: Sequence[ThroughputRecord]) -> str:
    """Return the rows as CSV."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, KEYS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(throughput_rows(records))
    return stream.getvalue()


def render_json(records: Sequence[ThroughputRecord]) -> str:
    """Return rows and records as JSON."""
    document = {"rows": throughput_rows(records), "records": [json_dataclass.dump(record) for record in records]}
    return json.dumps(document, indent=2) + "\n"


RENDERERS: dict[str, Callable[[Sequence[ThroughputRecord]], str]] = {"md": render_markdown, "csv": render_csv, "json": render_json}
