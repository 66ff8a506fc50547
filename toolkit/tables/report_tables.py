"""Select the tables of a report, with their columns and rows, independent of the output format."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from exporters.gate.matching_limits import RULE as MATCHING_RULE
from exporters.gate.verdict import RULE, comparisons
from toolkit.records.record import Record
from toolkit.stats.components import component_rows
from toolkit.stats.growth import growth_rows
from toolkit.stats.rows import Row
from toolkit.tables.columns import (
    AGREEMENT,
    ANSWER_SCORES,
    BESIDE,
    COST,
    ENERGY,
    GROWTH,
    GROWTH_LEGEND,
    LIMITS,
    MATCHING_QUALITY,
    ON_GPU,
    QUALITY,
    RANKS,
    RETRIEVAL,
    SCORES,
    SPEED,
    STAGES,
    START,
    TEXT_STAGE,
    TOKENS_PER_STEP,
    Column,
    component_columns,
)
from toolkit.tables.words import in_words, words_of


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
    good, words = [row for row in rows if row["seconds_per_image"] is not None], words_of(records)

    def with_figure(key: str) -> list[Row]:
        return good if any(row[key] is not None for row in good) else []

    energy = (ENERGY,) if with_figure("joules_per_image") else ()
    drafted = (TOKENS_PER_STEP,) if any((row["tokens_per_step"] or 1) > 1 for row in good) else ()
    on_gpu = ON_GPU if any(row["device"] != "cpu" for row in good) else ()
    texts = (TEXT_STAGE,) if with_figure("text_seconds") else ()
    scored = with_figure("drift") or with_figure("bleu4")
    ranked = with_figure("image_recall_1")
    candidates = [
        Sheet("Speed", (*SPEED, *drafted), good),
        Sheet("Memory and size", (*COST, *on_gpu, *energy), good),
        Sheet("Quality", QUALITY, scored, quality_note(good)),
        Sheet("Quality", MATCHING_QUALITY, ranked, quality_note(good, MATCHING_RULE)),
        Sheet("Agreement", AGREEMENT, [] if scored or ranked else good),
        Sheet("Agreement with FP32", BESIDE, scored),
        Sheet("Agreement with FP32", RANKS, ranked),
        Sheet("Scores", SCORES, with_figure("bleu4")),
        Sheet("Scores", ANSWER_SCORES, with_figure("vqa_accuracy")),
        Sheet("Scores", RETRIEVAL, ranked),
        Sheet("Start-up", START, good),
        Sheet("Stages", (*STAGES, *texts), good),
        Sheet("Against the machine's limits", LIMITS, with_figure("token_limit_seconds")),
        growth_sheet(records),
        component_sheet(records),
    ]
    return [replace(sheet, columns=in_words(sheet.columns, words)) for sheet in candidates if sheet.rows]


def quality_note(rows: Sequence[Row], rule: str = RULE) -> str:
    """Return the rule of the verdicts and their number; without verdicts, the rule alone."""
    judged = sum(row["verdict"] is not None for row in rows)
    return f"{rule}\n{comparisons(judged)}" if judged else rule


def growth_sheet(records: Sequence[Record]) -> Sheet:
    """Return the table of growth over a sweep; it has no rows without a sweep."""
    return Sheet("Growth", GROWTH, growth_rows(records), GROWTH_LEGEND)


def component_sheet(records: Sequence[Record]) -> Sheet:
    """Return the table of component sizes; it has no rows if no record has components."""
    rows = component_rows(records)
    return Sheet("Bytes of components", component_columns(rows) if rows else (), rows)
