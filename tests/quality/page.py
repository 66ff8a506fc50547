"""Render the results page on quality: `python -m tests.quality.page FOLDER` writes FOLDER/quality.md from the records in FOLDER.

The page of the documentation is rendered from the committed records with the same functions (`make docs`). A section without records is
shown as not measured.
"""

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from exporters.gate.drift import Drift, drift_text
from exporters.gate.verdict import judge
from tests.docs.pages import DOCS, rendered
from tests.docs.reference import table
from tests.quality.sections import Row, Section, read_section
from toolkit.records.record_file import read_records
from toolkit.records.source_commit import shown_commit
from toolkit.stats.rows import check_comparable, make_rows
from toolkit.tables.columns import BESIDE, QUALITY, SCORES
from toolkit.tables.footnotes import facts
from toolkit.tables.markdown import table as aligned_table
from toolkit.tables.report_tables import quality_note

PAGE = DOCS / "results" / "quality.md"
NOT_MEASURED = "Not measured.\n"
KIND = "section"
"""Kind of the page's generated parts."""

FACTS = ("Host", "Measured", "Workload", "BLEU", "Changes", "Drift", "KL")
"""The footnotes of a report that concern quality."""
SCALES = (1, 10, 30, 100)
SHADES = " ░▒▓█"
"""Of the heat map, from no drift to the largest."""
PAIRED = {
    "smoothed_minus_plain": "Drift with smoothing minus drift without, paired by image, in nat/token:",
    "over_unmodified": "Drift with outliers minus drift on the unmodified checkpoint, paired by image, in nat/token:",
}
"""Key of rows of the section `stress` → caption of the table of this difference."""
LAYER = re.compile(r"(?P<before>.*?)\.?(?P<block>\d+)\.(?P<name>.+)")


def _drift(row: Row) -> str:
    return "-" if row.get("drift") is None else drift_text(row["drift"], row.get("drift_low"), row.get("drift_high"))


def _ratio(name: str, row: Row) -> str:
    if row.get(name) is None:
        return "-"
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    return f"{row[name]:.4f}" if low is None or high is None else f"{row[name]:.4f} [{low:.4f}, {high:.4f}]"


def _kl(row: Row) -> str:
    return f"{_ratio('kl_ratio', row)} of before" if row.get("kl_ratio") is not None else _ratio("kl", row)


def _megabytes(row: Row) -> str:
    return "-" if row.get("bytes") is None else f"{row['bytes'] / 1e6:.2f}"


def _verdict(section: Section, row: Row) -> str:
    """Return the verdict of a row that has a limit."""
    if row.get("drift_limit") is None or row.get("drift_high") is None:
        return "-"
    drift = Drift(
        nat=row["drift"],
        low=row["drift_low"],
        high=row["drift_high"],
        spread=row.get("spread") or float("nan"),
        images=row.get("images") or section.images,
    )
    return judge(drift, row["drift_limit"]).text


def _outliers(row: Row) -> str:
    return "none" if row["scale"] == 1 else f"`{row['kind']}`, {row['scale']}x"


def _stress(section: Section) -> str:
    """Return a table per kind of outliers: recipes with and without smoothing, and one column per scale.

    Scale 1 is the unmodified checkpoint, so its rows belong to all kinds. A row that smoothing does not change is left out.
    """
    parts = []
    changed = [row for row in section.rows if any(row.get(f"smoothed_minus_plain{end}", 1) for end in ("", "_low", "_high"))]
    for kind in dict.fromkeys(row["kind"] for row in section.rows):
        cells = {
            (row["case"], row["smoothed"], row["scale"]): _drift(row) for row in section.rows if row["kind"] == kind or row["scale"] == 1
        }
        cases = dict.fromkeys((row["case"], row["smoothed"]) for row in changed if row["kind"] == kind)
        rows = [
            (f"`{case}`", "yes" if smoothed else "no", *(cells.get((case, smoothed, scale), "-") for scale in SCALES))
            for case, smoothed in cases
        ]
        titles = ("recipe", "smoothed", *(f"{scale}x" for scale in SCALES))
        parts.append(f"Outliers of kind `{kind}`, drift in nat/token:\n\n{table(titles, rows)}")
    for key, text in PAIRED.items():
        rows = [
            (f"`{row['case']}`", "yes" if row["smoothed"] else "no", _outliers(row), drift_text(*values))
            for row in changed
            if None not in (values := tuple(row.get(f"{key}{end}") for end in ("", "_low", "_high")))
        ]
        if rows:
            parts.append(f"{text}\n\n{table(('recipe', 'smoothed', 'outliers', 'difference'), rows)}")
    return "\n".join(parts)


def _int4(section: Section) -> str:
    titles = ("method", "block", "smoothed", "images", "drift nat/token", "KL nat/token", "MB", "")
    return "\n".join(
        f"{stage.capitalize()}:\n\n"
        + table(
            titles,
            (
                (
                    str(row["case"]),
                    str(row.get("block") or "-"),
                    "yes" if row.get("smoothed") else "no",
                    str(row.get("images") or section.images),
                    _drift(row),
                    _kl(row),
                    _megabytes(row),
                    "default" if row.get("default") else "",
                )
                for row in section.rows
                if row["stage"] == stage
            ),
        )
        for stage in dict.fromkeys(row["stage"] for row in section.rows)
    )


def _qat(section: Section) -> str:
    titles = ("recipe", "stage", "drift nat/token", "KL nat/token", "verdict", "minutes")
    return table(
        titles,
        (
            (
                f"`{row['case']}`",
                str(row["stage"]),
                _drift(row),
                _kl(row),
                _verdict(section, row),
                "-" if row.get("seconds") is None else f"{row['seconds'] / 60:.0f}",
            )
            for row in section.rows
        ),
    )


def _sensitivity(section: Section) -> str:
    """Return a heat map of blocks and layers per component: the drift if only this layer is quantized, in 0.001 nat/token."""
    rows = [row for row in section.rows if row["mode"] == "only"]
    highest = max((row["drift"] for row in rows), default=0.0)
    parts = []
    for component in dict.fromkeys(row["component"] for row in rows):
        cells: dict[tuple[str, str], str] = {}
        for row in (row for row in rows if row["component"] == component):
            match = LAYER.fullmatch(row["layer"])
            place = (match["name"], match["block"]) if match else (row["layer"], "")
            cells[place] = _shaded(row["drift"], highest)
        blocks = sorted({block for _, block in cells}, key=lambda block: int(block or -1))
        names = dict.fromkeys(name for name, _ in cells)
        lines = [(f"`{name}`", *(cells.get((name, block), "") for block in blocks)) for name in names]
        parts.append(f"{component}, drift in 0.001 nat/token:\n\n{table(('layer', *(block or 'one' for block in blocks)), lines)}")
    return "\n".join(parts)


def _shaded(drift: float, highest: float) -> str:
    share = max(drift, 0.0) / highest if highest > 0 else 0.0
    return f"{SHADES[round(share * (len(SHADES) - 1))]} {drift * 1e3:+.1f}".strip()


def _matching(section: Section) -> str:
    titles = ("recipe", "R@1", "R@5", "R@1 with head", "same best image", "change of similarity", "change of probability", "gate", "MB")
    return table(
        titles,
        (
            (
                f"`{row['case']}`",
                f"{row['recall_1']:.3f} [{row['recall_1_low']:.3f}, {row['recall_1_high']:.3f}]",
                *(f"{row[key]:.3f}" for key in ("recall_5", "recall_1_head", "same_best")),
                *(f"{row[key]:.4f}" for key in ("similarity_change", "probability_change")),
                "passed" if row["gate"] else "not passed",
                _megabytes(row),
            )
            for row in section.rows
        ),
    )


TABLES: dict[str, Callable[[Section], str]] = {
    "stress": _stress,
    "int4": _int4,
    "sensitivity": _sensitivity,
    "qat": _qat,
    "matching": _matching,
}
"""Section → its table, in the order of the page; `recipes` has the tables of a report."""


def show(name: str, folder: Path) -> str:
    """Return the Markdown of a section from the records in a folder."""
    if name == "recipes":
        return _recipes(folder / f"{name}.jsonl")
    section = read_section(folder / f"{name}.json")
    if section is None:
        return NOT_MEASURED
    command = f"Measured with `{section.command}`." if section.command else ""
    source = f"{section.images} images of {section.dataset}, checkpoint {section.checkpoint}, {section.host}."
    when = f"{section.measured_at[:10]}, commit {shown_commit(section.commit or 'unknown')}."
    return f"{TABLES[name](section)}\n" + "".join(f"- {line}\n" for line in filter(None, (*section.notes, source, when, command)))


def _recipes(path: Path) -> str:
    if not path.is_file():
        return NOT_MEASURED
    records = read_records(path)
    check_comparable(records, path.name)
    rows = [row for row in make_rows(records) if row["bleu4"] is not None]
    tables: Sequence[str] = [aligned_table(columns, rows) for columns in (QUALITY, BESIDE, SCORES)]
    notes = "\n".join(line for line in facts(records).splitlines() if line.partition(":")[0] in FACTS)
    return "\n\n".join([tables[0], quality_note(rows), *tables[1:], notes]) + "\n"


def main() -> None:
    """Write the page of a folder's records into that folder."""
    folder = Path(sys.argv[1])
    target = folder / PAGE.name
    target.write_text(rendered(PAGE, {KIND: lambda name, _: show(name, folder)}), encoding="utf-8")
    print(target)


if __name__ == "__main__":
    main()
