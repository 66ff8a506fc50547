"""Change over time: files of records go in; a row per case and file, oldest first, with its change since the last alike, comes out."""

import csv
import io
import json
from collections.abc import Callable, Sequence

from runtimes.errors import RequestError
from toolkit.compare.pairing import Run, differences
from toolkit.records.source_commit import shown_commit
from toolkit.stats.rows import Row, make_rows
from toolkit.tables.columns import NOT_MEASURED, Column, shown_case
from toolkit.tables.markdown import table
from toolkit.tables.report_tables import Sheet

FIGURES = (
    "seconds_per_image",
    "speedup",
    "speedup_low",
    "speedup_high",
    "startup_seconds",
    "peak_rss_bytes",
    "artifact_bytes",
    "drift",
    "drift_low",
    "drift_high",
    "bleu4",
    "cider",
    "unstable",
    "error",
)
"""As in a report's rows."""

CHANGES = ("seconds_per_image", "speedup", "artifact_bytes", "peak_rss_bytes")
"""Figures whose relative change is told."""

KEYS = (
    "case",
    "setting",
    "batch_size",
    "threads",
    "forced_tokens",
    "file",
    "measured_at",
    "commit",
    *FIGURES,
    *(f"{key}_change" for key in CHANGES),
    "since",
    "unlike",
)
"""`since` is the file that changes are relative to: the last one with this case on the same machine, with the same work and checkpoint.
`unlike` says what kept the file before it from being that one."""


UNCHANGED = "="
"""In place of a change of less than a tenth of a per cent."""


def history_rows(runs: Sequence[Run]) -> list[Row]:
    """Return the rows of each case together, in the order of their moments; runs that have none come first, as they were given.

    Raises:
        RequestError: A file is given twice.
    """
    if len({run.name for run in runs}) < len(runs):
        raise RequestError("a file of records is given twice")
    ordered = sorted(runs, key=_moment)
    found: dict[tuple[str, int, int, int | None], list[tuple[Run, Row]]] = {}
    for run in ordered:
        for row in make_rows(run.records):
            found.setdefault((row["case"], row["batch_size"], row["threads"], row["forced_tokens"]), []).append((run, row))
    return [_row(place, entries) for entries in found.values() for place in range(len(entries))]


def _moment(run: Run) -> str:
    return run.records[0].measured_at or ""


def _row(place: int, entries: Sequence[tuple[Run, Row]]) -> Row:
    run, report = entries[place]
    row: Row = dict.fromkeys(KEYS)
    row |= {key: report[key] for key in ("case", "setting", "batch_size", "threads", "forced_tokens", *FIGURES)}
    row |= {"file": run.name, "measured_at": run.records[0].measured_at, "commit": run.records[0].commit}
    before = [(other, theirs) for other, theirs in entries[:place] if theirs["seconds_per_image"] is not None]
    alike = [(other, theirs) for other, theirs in before if not differences(other, run)]
    if before and (not alike or alike[-1] is not before[-1]):
        row["unlike"] = "; ".join(difference.said for difference in differences(before[-1][0], run))
    if alike and report["seconds_per_image"] is not None:
        since, theirs = alike[-1]
        row["since"] = since.name
        row |= {f"{key}_change": report[key] / theirs[key] - 1 for key in CHANGES if report[key] and theirs[key]}
    return row


def _changing(key: str, pattern: str, scale: float = 1.0) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        if row[key] is None:
            return NOT_MEASURED
        change, figure = row[f"{key}_change"], pattern.format(row[key] * scale)
        if change is None:
            return figure
        return f"{figure} {change:+.1%}" if round(change, 3) else f"{figure} {UNCHANGED}"

    return cell


COLUMNS = (
    Column("case", shown_case),
    Column("measured", lambda row: (row["measured_at"] or NOT_MEASURED)[:10]),
    Column("commit", lambda row: shown_commit(row["commit"]) if row["commit"] else NOT_MEASURED),
    Column("s/image", _changing("seconds_per_image", "{:.3f}")),
    Column("speed-up", _changing("speedup", "{:.2f}x")),
    Column("size MB", _changing("artifact_bytes", "{:.0f}", 1e-6)),
    Column("drift", lambda row: NOT_MEASURED if row["drift"] is None else f"{round(row['drift'], 4) + 0.0:+.4f}"),
)

LEGEND = (
    "Beside a figure its change since the last run of the case on the same machine with the same work and checkpoint; `toolkit compare` "
    "tells which changes are clear. Speed-ups are against the baseline that each run had beside it."
)


def history_sheet(runs: Sequence[Run]) -> Sheet:
    """Return the table for people."""
    return Sheet("Change over time", COLUMNS, [row for row in history_rows(runs) if row["seconds_per_image"] is not None], LEGEND)


def newest(runs: Sequence[Run]) -> Run:
    """Return the run that was measured last."""
    return sorted(runs, key=_moment)[-1]


def render_markdown(runs: Sequence[Run]) -> str:
    """Return the table, and below it what does not compare and what cannot be trusted."""
    rows = history_rows(runs)
    notes = {
        "Not compared with the run before:": [f"- {shown_case(row)}, {row['file']}: {row['unlike']}" for row in rows if row["unlike"]],
        "Unstable:": [f"- {shown_case(row)}, {row['file']}: {row['unstable']}" for row in rows if row["unstable"]],
        "Failed:": [f"- {shown_case(row)}, {row['file']}: {row['error']}" for row in rows if row["error"]],
    }
    good = [row for row in rows if row["seconds_per_image"] is not None]
    parts = [table(COLUMNS, good)] if good else []
    parts += ["\n".join([title, *lines]) for title, lines in notes.items() if lines]
    return "\n\n".join([*parts, LEGEND]) + "\n"


def render_csv(runs: Sequence[Run]) -> str:
    """Return a line per row."""
    text = io.StringIO()
    writer = csv.DictWriter(text, KEYS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history_rows(runs))
    return text.getvalue()


def render_json(runs: Sequence[Run]) -> str:
    """Return the rows."""
    return json.dumps(history_rows(runs), indent=1, ensure_ascii=False) + "\n"


RENDERERS: dict[str, Callable[[Sequence[Run]], str]] = {"md": render_markdown, "csv": render_csv, "json": render_json}


def render_history(runs: Sequence[Run], layout: str, table_name: str | None) -> str:
    """Return the change over time.

    Raises:
        RequestError: One table of a report was asked for.
    """
    if table_name is not None:
        raise RequestError("--table is of one file of records; several show change over time")
    return RENDERERS[layout](runs)
