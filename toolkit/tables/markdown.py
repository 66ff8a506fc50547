"""Write Markdown tables with aligned columns, at most `WIDTH` characters wide."""

from collections.abc import Sequence

from toolkit.stats.rows import Row
from toolkit.tables.columns import Column

WIDTH = 100
"""Maximum characters of a line. A wider table is split; each part repeats the first column."""

BEST = " *"
"""Mark of the best figure of a column."""


def table(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """Return a table, split into several if it is too wide."""
    first, *rest = ([column.title, *marked(column, rows)] for column in columns)
    parts: list[list[list[str]]] = []
    for cells in rest:
        if not parts or _width([*parts[-1], cells]) > WIDTH:
            parts.append([first])
        parts[-1].append(cells)
    return "\n\n".join(_lines(part) for part in parts)


def marked(column: Column, rows: Sequence[Row]) -> list[str]:
    """Return a column's cells, with `BEST` at the best figure and at all figures with the same text.

    No figure is marked if fewer than two rows have one, or if all have the same text.
    """
    texts = [column.cell(row) for row in rows]
    key = column.lowest or column.highest
    measured = [index for index, row in enumerate(rows) if key and row[key] is not None]
    if key is None or len(measured) < 2:
        return texts
    best = (min if column.lowest else max)(measured, key=lambda index: float(rows[index][key]))
    same = {index for index in measured if _figure(texts[index]) == _figure(texts[best])}
    return texts if len(same) == len(measured) else [f"{text}{BEST}" if index in same else text for index, text in enumerate(texts)]


def _figure(text: str) -> str:
    return text.split(" ")[0]


def _width(columns: Sequence[Sequence[str]]) -> int:
    return sum(max(map(len, cells)) + 3 for cells in columns) + 1


def _lines(columns: Sequence[Sequence[str]]) -> str:
    padded = [[cell.ljust(max(map(len, cells))) for cell in cells] for cells in columns]
    titles, *lines = [f"| {' | '.join(line)} |" for line in zip(*padded, strict=True)]
    return "\n".join([titles, "|" + "|".join("-" * (len(cells[0]) + 2) for cells in padded) + "|", *lines])
