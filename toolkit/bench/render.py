"""Reports: records go in; Markdown, CSV or JSON text comes out."""

import csv
import io
import json
from collections.abc import Callable, Sequence

from runtimes import document
from toolkit.bench.columns import AGREEMENT, LIMITS, PHASES, QUALITY, SPEED, Column
from toolkit.bench.limits import Limits
from toolkit.bench.record import BASELINE, Record
from toolkit.bench.rows import KEYS, Row, make_rows

SCHEMA = 1
"""Of the JSON report. 1 (2026-11): first."""


def render_markdown(records: Sequence[Record]) -> str:
    """Return tables for people; facts that all rows share stand once, below."""
    rows = make_rows(records)
    good = [row for row in rows if row["seconds_per_image"] is not None]
    quality = QUALITY if any(row["bleu4"] is not None for row in good) else AGREEMENT
    limited = (LIMITS,) if any(row["token_limit_seconds"] is not None for row in good) else ()
    tables = [table(columns, good) for columns in (SPEED, quality, PHASES, *limited)] if good else []
    failures = [f"- {row['case']}: {row['error']}" for row in rows if row["error"]]
    parts = [*tables, *(["Failed:\n" + "\n".join(failures)] if failures else []), _facts(records)]
    return "\n\n".join(parts) + "\n"


def render_csv(records: Sequence[Record]) -> str:
    """Return one line per case with all keys of a row."""
    text = io.StringIO()
    writer = csv.DictWriter(text, KEYS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(make_rows(records))
    return text.getvalue()


def render_json(records: Sequence[Record]) -> str:
    """Return the report for programs."""
    workload = records[0].workload
    report = {
        "schema": SCHEMA,
        "host": document.to_json(records[0].host),
        "dataset": {"name": workload.dataset, "sha256": workload.dataset_sha256, "pictures": workload.pictures},
        "workload": document.to_json(workload),
        "versions": _versions(records),
        "limits": None if (limits := _limits(records)) is None else document.to_json(limits),
        "rows": make_rows(records),
    }
    return json.dumps(report, indent=1, ensure_ascii=False) + "\n"


RENDERERS: dict[str, Callable[[Sequence[Record]], str]] = {"md": render_markdown, "csv": render_csv, "json": render_json}


def table(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """Return a Markdown table whose columns line up in a terminal."""
    cells = [[column.title for column in columns], *([column.cell(row) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _versions(records: Sequence[Record]) -> dict[str, str]:
    return dict(sorted(item for record in records for item in record.versions.items()))


def _limits(records: Sequence[Record]) -> Limits | None:
    return next((record.limits for record in records if record.limits), None)


def _facts(records: Sequence[Record]) -> str:
    host, work = records[0].host, records[0].workload
    versions = ", ".join(f"{name} {version}" for name, version in _versions(records).items())
    lengths = (
        f"{work.max_length - 1} forced tokens" if work.min_length == work.max_length else f"at most {work.max_length} tokens with [DEC]"
    )
    search = "greedy" if work.beams == 1 else f"{work.beams} beams"
    memory = f", {host.memory_bytes / 2**30:.0f} GiB" if host.memory_bytes else ""
    lines = [
        f"Host: {host.cpu} ({', '.join(host.cpu_features)}), {host.cores} cores{memory}, {host.system}, Python {host.python}; {versions}.",
        f"Workload: {work.pictures} pictures of {work.dataset} (sha256 {work.dataset_sha256[:12]}), one at a time, {search}, {lengths}, "
        f"{_count(work.threads, 'thread')}, {work.warmup} warm-up, {_count(work.repeats, 'repeat')} interleaved, "
        "each case in its own process.",
        "Time is the median over pictures and repeats ± half the range of the repeats' medians; a speed-up is the median of the repeats' "
        f"ratios to {BASELINE} [lowest, highest]. Peak: highest resident memory from start to last caption.",
    ]
    if work.metric_counter:
        lines.append(
            f"BLEU: COCO's (closest reference length, no smoothing), n-grams counted by {work.metric_counter}; changes are relative to "
            f"{BASELINE} with a paired bootstrap 95 % interval over pictures; drift: rise of the references' negative log-probability."
        )
    if limits := _limits(records):
        integers = "" if limits.int8_macs_per_s is None else f" and {limits.int8_macs_per_s / 1e9:.0f} in INT8"
        lines.append(
            f"Limits: before the cases, {_count(limits.threads, 'thread')} read {limits.bytes_per_s / 1e9:.1f} GB/s and {limits.library} "
            f"multiplied {limits.float_macs_per_s / 1e9:.0f} GMAC/s in FP32{integers} (best of several); an encode cannot take less than "
            "its products at that rate, a token not less than reading its weights and cross K/V, unless they fit in the cache."
        )
    return "\n".join(lines)
