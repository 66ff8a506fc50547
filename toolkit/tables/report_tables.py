"""Select the tables of a report, with their columns and rows, independent of the output format."""

from collections.abc import Sequence
from dataclasses import dataclass

from exporters.gate.verdict import RULE, comparisons
from toolkit.records.record import Record
from toolkit.stats.components import component_rows
from toolkit.stats.growth import growth_rows
from toolkit.stats.rows import Row
from toolkit.tables.columns import (
    AGREEMENT,
    BESIDE,
    COST,
    ENERGY,
    GROWTH,
    GROWTH_LEGEND,
    LIMITS,
    ON_GPU,
    QUALITY,
    SCORES,
    SPEED,
    STAGES,
    START,
    TOKENS_PER_STEP,
    Column,
    component_columns,
)


@dataclass(frozen=True)
class Sheet:
    """A table with its title."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    note: str = ""
    """Explanation below the table."""


def sheets(records: Sequence[Record], rows: Sequence[Row]) -> list[Sheet]:
    """Return the tables for which the records have data."""
    good = [row for row in rows if row["seconds_per_image"] is not None]
    scored = good if any(row["bleu4"] is not None for row in good) else []
    limited = good if any(row["token_limit_seconds"] is not None for row in good) else []
    energy = (ENERGY,) if any(row["joules_per_image"] is not None for row in good) else ()
    drafted = (TOKENS_PER_STEP,) if any((row["tokens_per_step"] or 1) > 1 for row in good) else ()
    on_gpu = ON_GPU if any(row["device"] != "cpu" for row in good) else ()
    candidates = [
        Sheet("Speed", (*SPEED, *drafted), good),
        Sheet("Memory and size", (*COST, *on_gpu, *energy), good),
        Sheet("Quality", QUALITY, scored, quality_note(good)) if scored else Sheet("Agreement", AGREEMENT, good),
        Sheet("Agreement with FP32", BESIDE, scored),
        Sheet("Scores", SCORES, scored),
        Sheet("Start-up", START, good),
        Sheet("Stages", STAGES, good),
        Sheet("Against the machine's limits", LIMITS, limited),
        growth_sheet(records),
        component_sheet(records),
    ]
    return [sheet for sheet in candidates if sheet.rows]


def quality_note(rows: Sequence[Row]) -> str:
    """Return the rule of the verdicts and their number; without verdicts, the rule alone."""
    judged = sum(row["verdict"] is not None for row in rows)
    return f"{RULE}\n{comparisons(judged)}" if judged else RULE


def growth_sheet(records: Sequence[Record]) -> Sheet:
    """Return the table of growth over a sweep; it has no rows without a sweep."""
    return Sheet("Growth", GROWTH, growth_rows(records), GROWTH_LEGEND)


def component_sheet(records: Sequence[Record]) -> Sheet:
    """Return the table of component sizes; it has no rows if no record has components."""
    rows = component_rows(records)
    return Sheet("Bytes of components", component_columns(rows) if rows else (), rows)
