"""Markdown tables that line up in a terminal and fit it: columns and rows go in; text no wider than `WIDTH` comes out."""

from collections.abc import Sequence

from toolkit.stats.rows import Row
from toolkit.tables.columns import Column

WIDTH = 100
"""Characters of a line. A table that needs more goes on below, its first column repeated."""

BEST = " *"
"""Follows the best figure of a column."""


def table(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """Return a table, or several where one is too wide; a single cell may still be."""
    first, *others = ([column.title, *marked(column, rows)] for column in columns)
    parts: list[list[list[str]]] = []
    for cells in others:
        if not parts or _width([*parts[-1], cells]) > WIDTH:
            parts.append([first])
        parts[-1].append(cells)
    return "\n\n".join(_lines(part) for part in parts)


def marked(column: Column, rows: Sequence[Row]) -> list[str]:
    """Write a column's cells; a mark goes to the best one, and to all whose figure looks the same."""
    texts = [column.cell(row) for row in rows]
    key = column.lowest or column.highest
    known = [place for place, row in enumerate(rows) if key and row[key] is not None]
    if key is None or len(known) < 2:
        return texts
    best = (min if column.lowest else max)(known, key=lambda place: float(rows[place][key]))
    same = {place for place in known if _figure(texts[place]) == _figure(texts[best])}
    return texts if len(same) == len(known) else [f"{text}{BEST}" if place in same else text for place, text in enumerate(texts)]


def _figure(text: str) -> str:
    return text.split(" ")[0]


def _width(columns: Sequence[Sequence[str]]) -> int:
    return sum(max(map(len, cells)) + 3 for cells in columns) + 1


def _lines(columns: Sequence[Sequence[str]]) -> str:
    padded = [[cell.ljust(max(map(len, cells))) for cell in cells] for cells in columns]
    titles, *lines = [f"| {' | '.join(line)} |" for line in zip(*padded, strict=True)]
    return "\n".join([titles, "|" + "|".join("-" * (len(cells[0]) + 2) for cells in padded) + "|", *lines])
