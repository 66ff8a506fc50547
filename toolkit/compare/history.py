"""Show benchmark results over time: one row per case and file, oldest first, with the change since the last comparable file."""

import csv
import io
import json
from collections.abc import Callable, Sequence

from runtimes.errors import RequestError
from toolkit.compare.pairing import BenchRun, differences
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
"""Keys of a report's rows."""

CHANGES = ("seconds_per_image", "speedup", "artifact_bytes", "peak_rss_bytes")
"""Figures whose relative change is shown."""

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
    "compared_with",
    "not_compared_reason",
)
"""`compared_with` is the file that changes are relative to: the last one with this case, the same machine, workload and checkpoint.
`not_compared_reason` lists the differences from the previous file if that file is not comparable."""

UNCHANGED = "="
"""Shown instead of a change of less than 0.05 %."""


def history_rows(runs: Sequence[BenchRun]) -> list[Row]:
    """Return the rows, grouped by case and sorted by time of measurement. Runs without a time come first, in the given order.

    Raises:
        RequestError: A file is given twice.
    """
    if len({run.name for run in runs}) < len(runs):
        raise RequestError("a file of records is given twice")
    ordered = sorted(runs, key=_measured_at)
    groups: dict[tuple[str, int, int, int | None], list[tuple[BenchRun, Row]]] = {}
    for run in ordered:
        for row in make_rows(run.records):
            groups.setdefault((row["case"], row["batch_size"], row["threads"], row["forced_tokens"]), []).append((run, row))
    return [_row(index, entries) for entries in groups.values() for index in range(len(entries))]


def _measured_at(run: BenchRun) -> str:
    return run.records[0].measured_at or ""


def _row(index: int, entries: Sequence[tuple[BenchRun, Row]]) -> Row:
    run, report = entries[index]
    row: Row = dict.fromkeys(KEYS)
    row |= {key: report[key] for key in ("case", "setting", "batch_size", "threads", "forced_tokens", *FIGURES)}
    row |= {"file": run.name, "measured_at": run.records[0].measured_at, "commit": run.records[0].commit}
    earlier = [entry for entry in entries[:index] if entry[1]["seconds_per_image"] is not None]
    comparable = [entry for entry in earlier if not differences(entry[0], run)]
    if earlier and (not comparable or comparable[-1] is not earlier[-1]):
        row["not_compared_reason"] = "; ".join(difference.text for difference in differences(earlier[-1][0], run))
    if comparable and report["seconds_per_image"] is not None:
        reference, reference_row = comparable[-1]
        row["compared_with"] = reference.name
        row |= {f"{key}_change": report[key] / reference_row[key] - 1 for key in CHANGES if report[key] and reference_row[key]}
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
    "The percentage after a value is its change since the last run with the same case, machine, workload and checkpoint; = is no change. "
    "`toolkit compare` computes confidence intervals of changes. Speed-ups are relative to the baseline of the same run."
)


def history_sheet(runs: Sequence[BenchRun]) -> Sheet:
    """Return the table, without failed rows."""
    return Sheet("Change over time", COLUMNS, [row for row in history_rows(runs) if row["seconds_per_image"] is not None], LEGEND)


def newest(runs: Sequence[BenchRun]) -> BenchRun:
    """Return the run that was measured last."""
    return sorted(runs, key=_measured_at)[-1]


def render_markdown(runs: Sequence[BenchRun]) -> str:
    """Return the table, and below it the rows that are not comparable, unstable or failed."""
    rows = history_rows(runs)
    notes = {
        title: [f"- {shown_case(row)}, {row['file']}: {row[key]}" for row in rows if row[key]]
        for title, key in (
            ("Not comparable with the previous run:", "not_compared_reason"),
            ("Unstable:", "unstable"),
            ("Failed:", "error"),
        )
    }
    good = [row for row in rows if row["seconds_per_image"] is not None]
    parts = [table(COLUMNS, good)] if good else []
    parts += ["\n".join([title, *lines]) for title, lines in notes.items() if lines]
    return "\n\n".join([*parts, LEGEND]) + "\n"


def render_csv(runs: Sequence[BenchRun]) -> str:
    """Return the rows as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, KEYS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history_rows(runs))
    return text.getvalue()


def render_json(runs: Sequence[BenchRun]) -> str:
    """Return the rows as JSON."""
    return json.dumps(history_rows(runs), indent=1, ensure_ascii=False) + "\n"


RENDERERS: dict[str, Callable[[Sequence[BenchRun]], str]] = {"md": render_markdown, "csv": render_csv, "json": render_json}


def render_history(runs: Sequence[BenchRun], layout: str, table_name: str | None) -> str:
    """Return the history in a layout of RENDERERS.

    Raises:
        RequestError: `table_name` is given; a history has only one table.
    """
    if table_name is not None:
        raise RequestError("--table needs exactly one file of records")
    return RENDERERS[layout](runs)
