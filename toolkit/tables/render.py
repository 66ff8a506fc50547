"""Write reports of records as Markdown, CSV or JSON."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from runtimes.artifact import json_dataclass
from runtimes.errors import RecordError
from toolkit.records.record import Record
from toolkit.stats.components import component_rows
from toolkit.stats.growth import growth_rows
from toolkit.stats.rows import KEYS, Row, make_rows
from toolkit.tables.columns import UNSTABLE, shown_case
from toolkit.tables.footnotes import facts, limits_of, versions_of
from toolkit.tables.markdown import table
from toolkit.tables.report_tables import Sheet, component_sheet, growth_sheet, sheets

SCHEMA = 1
"""Version of the JSON report. 1 (2026-11): first."""


def render_markdown(records: Sequence[Record]) -> str:
    """Return all tables, the unstable and the failed cases, and the footnotes."""
    rows = make_rows(records)
    parts = [_markdown(sheet) for sheet in sheets(records, rows)]
    parts.append(unstable_section(rows))
    parts.append(_section("Failed:", [f"- {shown_case(row)}: {row['error']}" for row in rows if row["error"]]))
    return "\n\n".join(filter(None, [*parts, facts(records)])) + "\n"


def unstable_section(rows: Sequence[Row]) -> str:
    """Return the cases with unstable times and the reasons; an empty text if all times are stable."""
    return _section(f"Unstable ({UNSTABLE.strip()}):", [f"- {shown_case(row)}: {row['unstable']}" for row in rows if row["unstable"]])


def _section(title: str, lines: Sequence[str]) -> str:
    return "\n".join([title, *lines]) if lines else ""


def render_csv(records: Sequence[Record]) -> str:
    """Return one line per row, with all keys of a row."""
    return _lines(KEYS, make_rows(records))


def render_json(records: Sequence[Record]) -> str:
    """Return the report as a JSON object."""
    workload = records[0].workload
    report = {
        "schema": SCHEMA,
        "host": json_dataclass.dump(records[0].host),
        "dataset": {"name": workload.dataset, "sha256": workload.dataset_sha256, "images": workload.images},
        "workload": json_dataclass.dump(workload),
        "versions": versions_of(records),
        "commit": records[0].commit,
        "measured_at": records[0].measured_at,
        "limits": [json_dataclass.dump(limits) for limits in limits_of(records)],
        "rows": make_rows(records),
        "growth": growth_rows(records),
        "components": component_rows(records),
    }
    return json.dumps(report, indent=1, ensure_ascii=False) + "\n"


RENDERERS: dict[str, Callable[[Sequence[Record]], str]] = {"md": render_markdown, "csv": render_csv, "json": render_json}


def render_table(records: Sequence[Record], name: str, layout: str) -> str:
    """Return a single table.

    Args:
        records: Of one run.
        name: Key of `TABLES`.
        layout: md, csv or json.

    Raises:
        RecordError: The records have no data for this table.
    """
    sheet = TABLES[name].sheet(records)
    if not sheet.rows:
        raise RecordError("these records", f"have no data for the table '{name}': {TABLES[name].needs}")
    if layout == "json":
        return json.dumps(sheet.rows, indent=1, ensure_ascii=False) + "\n"
    if layout == "csv":
        rows = [{key: " ".join(v) if isinstance(v, list) else v for key, v in row.items()} for row in sheet.rows]
        return _lines(list(rows[0]), rows)
    notes = unstable_section(make_rows(records)) if TABLES[name].timed else ""
    return "\n\n".join(filter(None, [_markdown(sheet), notes])) + "\n"


@dataclass(frozen=True)
class Table:
    """A table that `render_table` can write alone."""

    sheet: Callable[[Sequence[Record]], Sheet]
    needs: str
    """What the records need, for the error message."""
    timed: bool
    """Whether it has times, so that the unstable cases are listed below it."""


TABLES = {
    "growth": Table(growth_sheet, "run the benchmark with several values of --batch-size, --threads or --tokens", timed=True),
    "components": Table(component_sheet, "measure artifacts again with this toolkit", timed=False),
}


def _markdown(sheet: Sheet) -> str:
    return table(sheet.columns, sheet.rows) + (f"\n\n{sheet.note}" if sheet.note else "")


def _lines(keys: Sequence[str], rows: Sequence[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, keys, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
