"""Write profiles as Markdown, CSV or JSON."""

import csv
import io
import json
from collections.abc import Callable, Sequence

from runtimes.artifact import json_dataclass
from toolkit.bench.profiling.operator_classes import by_class
from toolkit.bench.profiling.profile import Profile, Profiled
from toolkit.stats.rows import Row
from toolkit.tables.columns import NOT_MEASURED, Column, number
from toolkit.tables.markdown import table

SCHEMA = 1
"""Version of the JSON format. 1 (2026-11): first."""

KEYS = ("case", "part", "name", "seconds", "share", "python_seconds", "operators")
"""Keys of a row.

`part` is "stages" or a component ("encoder", "decoder"). `share` is a share of the caption's time for stages, and of the component's time
with the profiler for operators.
"""

NAMED = 3
"""Number of operators that a table names per class; JSON has all."""

TITLES = {"first_token": "first token", "token": "further tokens", "rest": "rest (search, text)"}

_MS = (Column("ms", number("seconds", "{:.2f}", 1e3)), Column("share", number("share", "{:.1%}")))


def _python(row: Row) -> str:
    if row["python_seconds"] is None:
        return NOT_MEASURED
    return f"{row['python_seconds'] * 1e3:.2f} ({row['python_seconds'] / row['seconds']:.1%})"


def _names(row: Row) -> str:
    names = [name.removeprefix("aten::") for name in row["operators"].split(" ")]
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _stage(row: Row) -> str:
    return TITLES.get(row["name"], str(row["name"]))


STAGES = (Column("stage", _stage), *_MS, Column("Python ms", _python))
OPERATORS = (*_MS, Column("operators", _names))


def make_rows(profiled: Profiled) -> list[Row]:
    """Return one row per stage and one per class of operators, slowest class first."""
    if profiled.profile is None:
        return []
    rows = [
        _row(profiled.case, "stages", stage.name, stage.seconds, profiled.profile.seconds) | {"python_seconds": stage.python_seconds}
        for stage in profiled.profile.stages
    ]
    for part, operators in sorted(profiled.profile.operators.items(), reverse=True):
        for name, members in by_class(operators).items():
            row = _row(profiled.case, part, name, sum(members.values()), sum(operators.values()))
            rows.append(row | {"operators": " ".join(members)})
    return rows


def _row(case: str, part: str, name: str, seconds: float, whole: float) -> Row:
    return {**dict.fromkeys(KEYS), "case": case, "part": part, "name": name, "seconds": seconds, "share": seconds / whole if whole else 0.0}


def render_markdown(profiles: Sequence[Profiled]) -> str:
    """Return three tables per artifact."""
    parts = [_tables(profiled, profiled.profile) for profiled in profiles if profiled.profile]
    if failures := [f"- {profiled.case}: {profiled.error}" for profiled in profiles if profiled.error]:
        parts.append("Failed:\n" + "\n".join(failures))
    if len(parts) > bool(failures):
        parts.append(
            "All times are means over images. Stages are timed without a profiler.\n"
            "Operators are timed in a second pass with a profiler, which slows them: use their shares, not their times."
        )
    return "\n\n".join(parts) + "\n"


def _tables(profiled: Profiled, profile: Profile) -> str:
    rows = make_rows(profiled)
    slower = f"{profile.traced_seconds / profile.seconds - 1:+.0%}"
    title = f"{profiled.case}: {profile.seconds * 1e3:.1f} ms per caption of {profile.tokens:.1f} tokens ({slower} with the profiler)"
    tables = [title, table(STAGES, [row for row in rows if row["part"] == "stages"])]
    for part in ("encoder", "decoder"):
        tables.append(table((Column(part, lambda row: row["name"]), *OPERATORS), [row for row in rows if row["part"] == part]))
    return "\n\n".join(tables)


def render_csv(profiles: Sequence[Profiled]) -> str:
    """Return one line per stage and one per class of operators."""
    text = io.StringIO()
    writer = csv.DictWriter(text, KEYS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row for profiled in profiles for row in make_rows(profiled))
    return text.getvalue()


def render_json(profiles: Sequence[Profiled]) -> str:
    """Return all values, with the seconds of every operator."""
    cases = [{**json_dataclass.dump(profiled), "rows": make_rows(profiled)} for profiled in profiles]
    return json.dumps({"schema": SCHEMA, "cases": cases}, indent=1, ensure_ascii=False) + "\n"


RENDERERS: dict[str, Callable[[Sequence[Profiled]], str]] = {"md": render_markdown, "csv": render_csv, "json": render_json}
