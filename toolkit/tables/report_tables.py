"""Which tables a report has: records and their rows go in, titled columns and rows come out, whatever they are then written as."""

from collections.abc import Sequence
from dataclasses import dataclass

from toolkit.records.record import Record
from toolkit.stats.components import component_rows
from toolkit.stats.growth import growth_rows
from toolkit.stats.rows import Row
from toolkit.tables.columns import (
    AGREEMENT,
    COST,
    ENERGY,
    GROWTH,
    GROWTH_LEGEND,
    LIMITS,
    QUALITY,
    SCORES,
    SPEED,
    STAGES,
    START,
    Column,
    component_columns,
)


@dataclass(frozen=True)
class Sheet:
    """One table."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    note: str = ""
    """How to read it, below."""


def sheets(records: Sequence[Record], rows: Sequence[Row]) -> list[Sheet]:
    """Return the tables that the records have figures for."""
    good = [row for row in rows if row["seconds_per_image"] is not None]
    scored = good if any(row["bleu4"] is not None for row in good) else []
    limited = good if any(row["token_limit_seconds"] is not None for row in good) else []
    energy = (ENERGY,) if any(row["joules_per_image"] is not None for row in good) else ()
    found = [
        Sheet("Speed", SPEED, good),
        Sheet("Memory and size", (*COST, *energy), good),
        Sheet("Quality", QUALITY if scored else AGREEMENT, good),
        Sheet("Scores", SCORES, scored),
        Sheet("Start-up", START, good),
        Sheet("Stages", STAGES, good),
        Sheet("Against the machine's limits", LIMITS, limited),
        growth_sheet(records),
        component_sheet(records),
    ]
    return [sheet for sheet in found if sheet.rows]


def growth_sheet(records: Sequence[Record]) -> Sheet:
    """Return the growth over a sweep; without one, no rows."""
    return Sheet("Growth", GROWTH, growth_rows(records), GROWTH_LEGEND)


def component_sheet(records: Sequence[Record]) -> Sheet:
    """Return the bytes of components; no rows where no record tells."""
    rows = component_rows(records)
    return Sheet("Bytes of components", component_columns(rows) if rows else (), rows)
