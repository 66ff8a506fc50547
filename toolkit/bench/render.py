"""Reports: records go in; Markdown, CSV or JSON text comes out."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from runtimes import document
from runtimes.errors import RecordError
from toolkit.bench import growth
from toolkit.bench.columns import Column, shown_case
from toolkit.bench.components import component_rows
from toolkit.bench.limits import Limits
from toolkit.bench.record import BASELINE, Record
from toolkit.bench.rows import KEYS, Row, make_rows
from toolkit.bench.sheets import Sheet, component_sheet, growth_sheet, sheets
from toolkit.bench.sweep import setting_of, settings_of, values

SCHEMA = 1
"""Of the JSON report. 1 (2026-11): first."""


def render_markdown(records: Sequence[Record]) -> str:
    """Return tables for people; facts that all rows share stand once, below."""
    rows = make_rows(records)
    tables = [_markdown(sheet) for sheet in sheets(records, rows)]
    failures = [f"- {shown_case(row)}: {row['error']}" for row in rows if row["error"]]
    parts = [*tables, *(["Failed:\n" + "\n".join(failures)] if failures else []), facts(records)]
    return "\n\n".join(parts) + "\n"


def render_csv(records: Sequence[Record]) -> str:
    """Return one line per case with all keys of a row."""
    return _lines(KEYS, make_rows(records))


def render_json(records: Sequence[Record]) -> str:
    """Return the report for programs."""
    workload = records[0].workload
    report = {
        "schema": SCHEMA,
        "host": document.to_json(records[0].host),
        "dataset": {"name": workload.dataset, "sha256": workload.dataset_sha256, "pictures": workload.pictures},
        "workload": document.to_json(workload),
        "versions": _versions(records),
        "commit": records[0].commit,
        "measured_at": records[0].measured_at,
        "limits": [document.to_json(limits) for limits in _limits(records)],
        "rows": make_rows(records),
        "growth": growth.growth_rows(records),
        "components": component_rows(records),
    }
    return json.dumps(report, indent=1, ensure_ascii=False) + "\n"


RENDERERS: dict[str, Callable[[Sequence[Record]], str]] = {"md": render_markdown, "csv": render_csv, "json": render_json}


def render_table(records: Sequence[Record], name: str, layout: str) -> str:
    """Return one table of `TABLES` alone.

    Raises:
        RecordError: The records do not hold what it shows.
    """
    sheet = TABLES[name].sheet(records)
    if not sheet.rows:
        raise RecordError("these records", f"hold nothing for the table '{name}': {TABLES[name].needs}")
    if layout == "json":
        return json.dumps(sheet.rows, indent=1, ensure_ascii=False) + "\n"
    if layout == "csv":
        rows = [{key: " ".join(v) if isinstance(v, list) else v for key, v in row.items()} for row in sheet.rows]
        return _lines(list(rows[0]), rows)
    return f"{_markdown(sheet)}\n"


@dataclass(frozen=True)
class Table:
    """A table that can stand alone."""

    sheet: Callable[[Sequence[Record]], Sheet]
    needs: str


TABLES = {
    "growth": Table(growth_sheet, "it takes a run with several batch sizes, threads or tokens"),
    "components": Table(component_sheet, "it takes artifacts measured by a newer toolkit"),
}


def _markdown(sheet: Sheet) -> str:
    return table(sheet.columns, sheet.rows) + (f"\n\n{sheet.note}" if sheet.note else "")


def _lines(keys: Sequence[str], rows: Sequence[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, keys, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def table(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """Return a Markdown table whose columns line up in a terminal."""
    cells = [[column.title for column in columns], *([column.cell(row) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _settings(records: Sequence[Record], search: str) -> str:
    """Say how many pictures at a time, how, how long and with how many threads."""
    batches, threads, tokens = (values(records, axis) for axis in ("batch_size", "threads", "tokens"))
    forced = [count for count in tokens if count is not None]
    lengths = [f"{_either(forced)} forced tokens"] if forced else []
    longest = [record.workload.max_length for record in records if setting_of(record).tokens is None]
    lengths += [f"at most {longest[0]} tokens with [DEC]"] if longest else []
    at_a_time = "one" if batches == [1] else _either(batches)
    return f"{at_a_time} at a time, {search}, {' or '.join(lengths)}, {_either(threads)} {'thread' if threads == [1] else 'threads'}"


def _either(values: Sequence[int | None]) -> str:
    return " or ".join(filter(None, (", ".join(map(str, values[:-1])), *map(str, values[-1:]))))


def _versions(records: Sequence[Record]) -> dict[str, str]:
    return dict(sorted(item for record in records for item in record.versions.items()))


def _limits(records: Sequence[Record]) -> list[Limits]:
    """Return the machine's limits, one for each number of threads."""
    return list({record.limits.threads: record.limits for record in records if record.limits}.values())


def facts(records: Sequence[Record]) -> str:
    """Return what all rows share: machine, workload, and what the figures mean."""
    host, work = records[0].host, records[0].workload
    versions = ", ".join(f"{name} {version}" for name, version in _versions(records).items())
    search = "greedy" if work.beams == 1 else f"{work.beams} beams"
    memory = f", {host.memory_bytes / 2**30:.0f} GiB" if host.memory_bytes else ""
    lines = [
        f"Host: {host.cpu} ({', '.join(host.cpu_features)}), {host.cores} cores{memory}, {host.system}, Python {host.python}; {versions}.",
        f"Workload: {work.pictures} pictures of {work.dataset} (sha256 {work.dataset_sha256[:12]}), "
        f"{_settings(records, search)}, {work.warmup} warm-up, {_count(work.repeats, 'repeat')} interleaved, "
        "each case in its own process.",
        "Time is the median over pictures and repeats ± half the range of the repeats' medians; a speed-up is the median of the repeats' "
        f"ratios to {BASELINE} [lowest, highest]. Peak: highest resident memory from start to last caption.",
    ]
    if len(settings_of(records)) > 1:
        lines.append("Cases: b pictures per run of the model (times are per picture, a batch's divided), t threads, tok forced tokens.")
    if work.metric_counter:
        lines.append(
            f"BLEU: COCO's (closest reference length, no smoothing), n-grams counted by {work.metric_counter}; changes are relative to "
            f"{BASELINE} with a paired bootstrap 95 % interval over pictures; drift: rise of the references' negative log-probability."
        )
    if limits := _limits(records):
        lines.append(
            f"Limits: before the cases, {'; '.join(map(_reached, limits))} (best of several); an encode cannot take less than "
            "its products at that rate, a token not less than reading its weights and cross K/V, unless they fit in the cache."
        )
    return "\n".join(lines)


def _reached(limits: Limits) -> str:
    integers = "" if limits.int8_macs_per_s is None else f" and {limits.int8_macs_per_s / 1e9:.0f} in INT8"
    return (
        f"{_count(limits.threads, 'thread')} read {limits.bytes_per_s / 1e9:.1f} GB/s and {limits.library} "
        f"multiplied {limits.float_macs_per_s / 1e9:.0f} GMAC/s in FP32{integers}"
    )
