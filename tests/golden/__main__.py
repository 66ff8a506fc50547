"""Rewrite the golden reports after an intended change: `python -m tests.golden`.

`git diff tests/golden` shows the changes. The reports are made from the hand-made records in `records.jsonl`; their times are powers of
two, so that sums are exact on every machine.
"""

from dataclasses import replace
from functools import cache
from pathlib import Path

from toolkit.compare import history, render
from toolkit.compare.limits import read_limit
from toolkit.compare.pairing import AllowedDifferences, BenchRun, pair_up
from toolkit.records.record import Record
from toolkit.records.record_file import read_records
from toolkit.tables.render import RENDERERS

HERE = Path(__file__).parent
LIMITS = ("seconds_per_image>+5%", "drift>0.01", "joules_per_image>+5%")


def before_and_after() -> tuple[BenchRun, BenchRun]:
    """Return the records, and a copy in which one case has a slower encoder and another case is smaller."""
    records = read_records(HERE / "records.jsonl")
    moments = ("2026-11-20T09:30:00Z", "2026-11-24T09:30:00Z")
    commits = ("a" * 40, "b" * 40 + "+dirty")
    before, after = (
        [replace(record, measured_at=moment, commit=commit) for record in records] for moment, commit in zip(moments, commits, strict=True)
    )
    return BenchRun(name="before.jsonl", records=before), BenchRun(name="after.jsonl", records=[_changed(record) for record in after])


def _changed(record: Record) -> Record:
    if record.case == "onnx-int8":
        slower = tuple(replace(time, total_s=time.total_s + time.encode_s, encode_s=2 * time.encode_s) for time in record.times)
        return replace(record, times=slower, versions={**record.versions, "onnxruntime": "1.25.0"})
    if record.case == "pytorch-int8" and record.subject:
        return replace(record, subject=replace(record.subject, artifact_bytes=record.subject.artifact_bytes // 2))
    return record


@cache
def compared() -> dict[str, str]:
    """Return name of a golden file of two runs → its text."""
    before, after = before_and_after()
    limits = [read_limit(text) for text in LIMITS]
    lines = [render.line_of(paired, limits, strict=False) for paired in pair_up(before, after, (), AllowedDifferences())]
    return {
        "compare.md": render.render_markdown(before, after, lines),
        "compare.json": render.render_json(before, after, lines),
        **{f"history.{layout}": make([after, before]) for layout, make in history.RENDERERS.items()},
    }


def main() -> None:
    """Write the reports of one run and of two runs."""
    records = read_records(HERE / "records.jsonl")
    reports = {f"report.{layout}": make(records) for layout, make in RENDERERS.items()}
    for name, text in {**reports, **compared()}.items():
        (HERE / name).write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
