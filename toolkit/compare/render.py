"""Render a comparison of two runs and its limit violations as Markdown or JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from runtimes.artifact import json_dataclass
from toolkit.compare.comparison import Compared, compare
from toolkit.compare.limits import Limit, Violation, find_violations
from toolkit.compare.measures import MEASURES
from toolkit.compare.pairing import BenchRun, Paired
from toolkit.records.record import BASELINE
from toolkit.records.source_commit import shown_commit
from toolkit.tables.columns import Column
from toolkit.tables.footnotes import versions_of
from toolkit.tables.markdown import table
from toolkit.tables.words import Words, words_of

SCHEMA = 1
"""Version of the JSON format. 1 (2026-11): first version."""

COLUMNS = (
    Column("measure", lambda row: str(row["title"])),
    Column("A", lambda row: str(row["a"])),
    Column("B", lambda row: str(row["b"])),
    Column("B against A", lambda row: str(row["text"])),
)

LEGEND = (
    "Changes are relative to A. Brackets contain a 95 % bootstrap confidence interval over repeats and, for measures of images, over the "
    "images of A and B. One of twenty unchanged measures is expected to look changed. Intervals do not cover machine changes between "
    "the runs; speed-ups are less affected by them, because each run has its own baseline."
)


@dataclass(frozen=True, kw_only=True)
class Line:
    """Two paired cases, their changes and the limits that they violate."""

    paired: Paired
    compared: Sequence[Compared]
    violations: Sequence[Violation]

    @property
    def name(self) -> str:
        """The name of the case, its name in B if different, and its setting."""
        name_in_b = f" against {self.paired.name_in_b}" if self.paired.name_in_b != self.paired.case else ""
        return f"{self.paired.case}{name_in_b}{f' {self.paired.setting}' if self.paired.setting else ''}"


def line_of(paired: Paired, limits: Sequence[Limit], *, strict: bool, named: bool = False) -> Line:
    """Compare paired cases and check limits. A case that is missing or failed in B violates every limit.

    The baseline has limits only if the user named it, since a build depends on the artifacts.
    """
    limits = () if paired.name_in_b == BASELINE and not named else limits
    if paired.pair is not None:
        compared = compare(paired.pair)
        return Line(paired=paired, compared=compared, violations=find_violations(limits, compared, strict=strict))
    lost = paired.problem if paired.problem and "in B" in paired.problem else None
    return Line(paired=paired, compared=(), violations=[Violation(limit=limit, reason=lost) for limit in limits if lost])


def render_markdown(a: BenchRun, b: BenchRun, lines: Sequence[Line]) -> str:
    """Return a table for each pair of cases, then unmeasured measures, unstable cases, cases without a pair, and violated limits."""
    parts, words = ["\n".join([_run("A", a), _run("B", b), *_versions(a, b)])], words_of(a.records)
    for line in lines:
        if line.paired.pair is not None:
            shown = [change for change in line.compared if change.measure.shown and not (change.a is None and change.b is None)]
            cells = [_cells(change, words) for change in shown]
            parts += [f"{line.name}:", table(COLUMNS, cells) + _agreement(line, words) + _verdicts(line)]
    parts.append(_unmeasured(lines, a.records[0].workload.task))
    parts.append(_section("Unstable:", [f"- {line.name} in {name}: {reason}" for line in lines for name, reason in _unstable(line)]))
    parts.append(_section("Not compared:", [f"- {line.name}: {line.paired.problem}" for line in lines if line.paired.problem]))
    violations = [(line.name, violation) for line in lines for violation in line.violations]
    parts.append(_section("Limits violated:", [f"- {name}: {violation.limit.text}: {violation.reason}" for name, violation in violations]))
    return "\n\n".join(filter(None, [*parts, LEGEND])) + "\n"


def render_json(a: BenchRun, b: BenchRun, lines: Sequence[Line]) -> str:
    """Return the comparison as JSON. A change is a fraction of A's value, or a difference if `absolute`."""
    report = {
        "schema": SCHEMA,
        "a": _facts(a),
        "b": _facts(b),
        "cases": [
            {
                "case": line.paired.case,
                "name_in_b": line.paired.name_in_b,
                "setting": line.paired.setting or None,
                "problem": line.paired.problem,
                "same_captions": line.paired.pair.quality.get("exact_match") if line.paired.pair else None,
                "verdict_a": line.paired.pair.a.row["verdict_text"] if line.paired.pair else None,
                "verdict_b": line.paired.pair.b.row["verdict_text"] if line.paired.pair else None,
                "unstable": dict(_unstable(line)),
                "measures": [_measured(change) for change in line.compared],
                "violations": [{"limit": violation.limit.text, "reason": violation.reason} for violation in line.violations],
            }
            for line in lines
        ],
        "passed": not any(line.violations for line in lines),
    }
    return json.dumps(report, indent=1, ensure_ascii=False) + "\n"


def _measured(compared: Compared) -> dict[str, Any]:
    figures = {"measure": compared.measure.key, "a": compared.a, "b": compared.b, "absolute": compared.measure.absolute}
    return figures | asdict(compared.change) | {"clear": compared.clear, "text": compared.text}


def _cells(compared: Compared, words: Words) -> dict[str, Any]:
    measure = compared.measure
    a, b = ("-" if value is None else measure.pattern.format(value * measure.scale) for value in (compared.a, compared.b))
    return {"title": words.of_task(measure.title), "a": a, "b": b, "text": compared.text}


def _agreement(line: Line, words: Words) -> str:
    assert line.paired.pair is not None
    share = line.paired.pair.quality.get("exact_match")
    return "" if share is None else f"\n\nThe {words.text}s of A and B are equal for {share:.0%} of the {words.sample}s."


def _verdicts(line: Line) -> str:
    """Return the verdicts of A and B, each on its drift from the baseline of its own run; an empty text for the baseline."""
    pair = line.paired.pair
    assert pair is not None
    known = [f"{name}: {text}" for name, case in (("A", pair.a), ("B", pair.b)) if (text := case.row["verdict_text"])]
    return f"\n\nQuality against FP32: {'; '.join(known)}." if known else ""


def _unmeasured(lines: Sequence[Line], task: str) -> str:
    """Return a sentence that names the measures of a task which neither run has."""
    measured = {change.measure.key for line in lines for change in line.compared if change.a is not None or change.b is not None}
    missing = [measure.title for measure in MEASURES if measure.shown and task in measure.tasks and measure.key not in measured]
    return f"Not measured: {', '.join(missing)}." if missing else ""


def _unstable(line: Line) -> list[tuple[str, str]]:
    pair = line.paired.pair
    return [(name, case.row["unstable"]) for name, case in (("A", pair.a), ("B", pair.b)) if case.row["unstable"]] if pair else []


def _section(title: str, lines: Sequence[str]) -> str:
    return "\n".join([title, *lines]) if lines else ""


def _run(letter: str, run: BenchRun) -> str:
    first = run.records[0]
    known = [first.measured_at, first.commit and f"commit {shown_commit(first.commit)}", first.host.cpu]
    return f"{letter}: {', '.join([run.name, *filter(None, known)])}"


def _versions(a: BenchRun, b: BenchRun) -> list[str]:
    """Return a line that lists the versions that differ; empty if none differs."""
    old, new = ({"Python": run.records[0].host.python, **versions_of(run.records)} for run in (a, b))
    changed = [f"{name} {old[name]} → {new[name]}" for name in old if name in new and old[name] != new[name]]
    return [f"Versions: {', '.join(changed)}"] if changed else []


def _facts(run: BenchRun) -> dict[str, Any]:
    first = run.records[0]
    return {
        "file": run.name,
        "measured_at": first.measured_at,
        "commit": first.commit,
        "host": json_dataclass.dump(first.host),
        "workload": json_dataclass.dump(first.workload),
        "versions": versions_of(run.records),
    }
