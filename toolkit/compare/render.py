"""A comparison for people and for programs: runs, pairs and broken limits go in; Markdown or JSON text comes out."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from runtimes.artifact import json_dataclass
from toolkit.compare.comparison import Compared, compare
from toolkit.compare.limits import Broken, Limit, broken
from toolkit.compare.measures import MEASURES
from toolkit.compare.pairing import Paired, Run
from toolkit.records.record import BASELINE
from toolkit.records.source_commit import shown_commit
from toolkit.tables.columns import Column
from toolkit.tables.footnotes import versions_of
from toolkit.tables.markdown import table

SCHEMA = 1
"""Of the JSON text. 1 (2026-11): first."""

COLUMNS = (
    Column("measure", lambda row: str(row["title"])),
    Column("A", lambda row: str(row["a"])),
    Column("B", lambda row: str(row["b"])),
    Column("B against A", lambda row: str(row["said"])),
)

LEGEND = (
    "Changes are of A's figure; in brackets a 95 % bootstrap interval over repeats and, where it is of images, over the same images "
    "of A and B. Of twenty measures that did not change one may look as if it had. What changed on the machine between the runs is in no "
    "interval: the speed-up is against the baseline that each run had beside it."
)


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of cases and what was found."""

    paired: Paired
    compared: Sequence[Compared]
    broken: Sequence[Broken]

    @property
    def name(self) -> str:
        """The case, what it stands against if that has another name, and its setting."""
        other = f" against {self.paired.other}" if self.paired.other != self.paired.case else ""
        return f"{self.paired.case}{other}{f' {self.paired.setting}' if self.paired.setting else ''}"


def line_of(paired: Paired, limits: Sequence[Limit], *, strict: bool) -> Line:
    """Compare a pair and try its limits; what is gone from B or fails there breaks all of them. The baseline is nobody's to ship."""
    limits = () if paired.other == BASELINE else limits
    if paired.pair is not None:
        compared = compare(paired.pair)
        return Line(paired=paired, compared=compared, broken=broken(limits, compared, strict=strict))
    lost = paired.problem if paired.problem and "in B" in paired.problem else None
    return Line(paired=paired, compared=(), broken=[Broken(limit=limit, reason=lost) for limit in limits if lost])


def render_markdown(a: Run, b: Run, lines: Sequence[Line]) -> str:
    """Return a table for each line, and below it what cannot be trusted, what was not compared, and which limits are broken."""
    parts = ["\n".join([_run("A", a), _run("B", b), *_versions(a, b)])]
    for line in lines:
        if line.paired.pair is not None:
            shown = [one for one in line.compared if one.measure.shown and not (one.a is None and one.b is None)]
            parts += [f"{line.name}:", table(COLUMNS, [_cells(one) for one in shown]) + _agreement(line)]
    parts.append(_unmeasured(lines))
    parts.append(_listed("Unstable:", [f"- {line.name} in {name}: {said}" for line in lines for name, said in _doubts(line)]))
    parts.append(_listed("Not compared:", [f"- {line.name}: {line.paired.problem}" for line in lines if line.paired.problem]))
    parts.append(_listed("Limits broken:", [f"- {line.name}: {one.limit.text}: {one.reason}" for line in lines for one in line.broken]))
    return "\n\n".join(filter(None, [*parts, LEGEND])) + "\n"


def render_json(a: Run, b: Run, lines: Sequence[Line]) -> str:
    """Return the comparison for programs; changes are fractions of A's figure, or differences where `absolute`."""
    report = {
        "schema": SCHEMA,
        "a": _facts(a),
        "b": _facts(b),
        "cases": [
            {
                "case": line.paired.case,
                "other": line.paired.other,
                "setting": line.paired.setting or None,
                "problem": line.paired.problem,
                "same_captions": line.paired.pair.quality.get("exact_match") if line.paired.pair else None,
                "unstable": dict(_doubts(line)),
                "measures": [_measured(one) for one in line.compared],
                "broken": [{"limit": one.limit.text, "reason": one.reason} for one in line.broken],
            }
            for line in lines
        ],
        "passed": not any(line.broken for line in lines),
    }
    return json.dumps(report, indent=1, ensure_ascii=False) + "\n"


def _measured(one: Compared) -> dict[str, Any]:
    figures = {"measure": one.measure.key, "a": one.a, "b": one.b, "absolute": one.measure.absolute}
    return figures | asdict(one.change) | {"clear": one.clear, "said": one.said}


def _cells(one: Compared) -> dict[str, Any]:
    a, b = ("-" if value is None else one.measure.pattern.format(value * one.measure.scale) for value in (one.a, one.b))
    return {"title": one.measure.title, "a": a, "b": b, "said": one.said}


def _agreement(line: Line) -> str:
    assert line.paired.pair is not None
    share = line.paired.pair.quality.get("exact_match")
    return "" if share is None else f"\n\nB says word for word what A says for {share:.0%} of the images."


def _unmeasured(lines: Sequence[Line]) -> str:
    """Name what people's table would show if any run had it."""
    measured = {one.measure.key for line in lines for one in line.compared if one.a is not None or one.b is not None}
    missing = [measure.title for measure in MEASURES if measure.shown and measure.key not in measured]
    return f"Not measured: {', '.join(missing)}." if missing else ""


def _doubts(line: Line) -> list[tuple[str, str]]:
    pair = line.paired.pair
    return [(name, side.row["unstable"]) for name, side in (("A", pair.a), ("B", pair.b)) if side.row["unstable"]] if pair else []


def _listed(title: str, lines: Sequence[str]) -> str:
    return "\n".join([title, *lines]) if lines else ""


def _run(letter: str, run: Run) -> str:
    first = run.records[0]
    known = [first.measured_at, first.commit and f"commit {shown_commit(first.commit)}", first.host.cpu]
    return f"{letter}: {', '.join([run.name, *filter(None, known)])}"


def _versions(a: Run, b: Run) -> list[str]:
    """Say which versions differ."""
    ours, theirs = ({"Python": run.records[0].host.python, **versions_of(run.records)} for run in (a, b))
    changed = [f"{name} {ours[name]} → {theirs[name]}" for name in ours if name in theirs and ours[name] != theirs[name]]
    return [f"Versions: {', '.join(changed)}"] if changed else []


def _facts(run: Run) -> dict[str, Any]:
    first = run.records[0]
    return {
        "file": run.name,
        "measured_at": first.measured_at,
        "commit": first.commit,
        "host": json_dataclass.dump(first.host),
        "workload": json_dataclass.dump(first.workload),
        "versions": versions_of(run.records),
    }
