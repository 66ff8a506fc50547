"""Draw quality against seconds per image, with the Pareto front."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toolkit.report.axes import label_above, scale_time, shown_time
from toolkit.report.labels import Box, Point, boxes_along, place_names
from toolkit.report.svg import ACCENT, INK, MUTED, PAPER, Plot, new_figure, to_themed_svg
from toolkit.stats.rows import Row
from toolkit.tables.columns import shown_case

HEIGHT_IN = 3.9
LEADER_DISTANCE = 12.0
"""A name that is further from its point gets a line to it."""


@dataclass(frozen=True, kw_only=True)
class PlotMeasure:
    """A figure that is drawn against time."""

    key: str
    name: str
    unit: str
    scale: float
    pattern: str
    lower_is_better: bool
    intervals: bool = True


MEASURES = (
    PlotMeasure(key="drift", name="drift", unit="nat/token", scale=1.0, pattern="{:+.4f}", lower_is_better=True),
    PlotMeasure(key="vqa_accuracy_change", name="change of VQA accuracy", unit="%", scale=100.0, pattern="{:+.1f}", lower_is_better=False),
    PlotMeasure(key="probability_change", name="change of probability", unit="mean", scale=1.0, pattern="{:.4f}", lower_is_better=True),
    PlotMeasure(key="cider_change", name="change of CIDEr-D", unit="%", scale=100.0, pattern="{:+.1f}", lower_is_better=False),
)
SIZE = PlotMeasure(key="artifact_bytes", name="size", unit="MB", scale=1e-6, pattern="{:.0f}", lower_is_better=True, intervals=False)
"""Replaces the quality measures if no quality was measured."""


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of the Pareto front by increasing x; lower is better in both coordinates.

    Of equal points only the first is returned.
    """
    best: list[int] = []
    for index in sorted(range(len(points)), key=lambda i: (points[i], i)):
        if not best or points[index][1] < points[best[-1]][1]:
            best.append(index)
    return best


def pareto_plot(rows: Sequence[Row], measure: PlotMeasure, chosen: Row | None) -> Plot | None:
    """Draw a measure against seconds per image; return None if fewer than two rows have it."""
    rows = [row for row in rows if row["seconds_per_image"] is not None and row[measure.key] is not None]
    if len(rows) < 2:
        return None
    sign = 1 if measure.lower_is_better else -1
    best = front([(row["seconds_per_image"], sign * row[measure.key]) for row in rows])
    figure, (axes,) = new_figure(HEIGHT_IN)
    seconds = [row["seconds_per_image"] for row in rows]
    scale_time(axes, seconds, room=1.5)  # for names
    better = "down" if measure.lower_is_better else "up"
    label_above(axes, f"{measure.name}, {measure.unit} ({better} is better)")
    if measure.intervals:
        axes.axhline(0, color=MUTED, linewidth=0.8)
    axes.plot([seconds[i] for i in best], [_value(rows[i], measure) for i in best], color=ACCENT, linewidth=1.2, alpha=0.6, zorder=2)
    for index, row in enumerate(rows):
        colour = ACCENT if index in best else MUTED
        if measure.intervals and (ends := _interval(row, measure)):
            axes.plot([row["seconds_per_image"]] * 2, ends, color=colour, linewidth=1, alpha=0.55, zorder=2)
        size = 8 if row is chosen else 5.5
        axes.plot([row["seconds_per_image"]], [_value(row, measure)], "o", color=colour, markersize=size, markeredgecolor=PAPER, zorder=3)
    _name(figure, axes, rows, measure, chosen, best)
    title = f"{measure.name[0].upper()}{measure.name[1:]} against time per image"
    described = "; ".join(_described(row, measure) for row in rows)
    description = f"{described}. Pareto front: {', '.join(shown_case(rows[i]) for i in best)}."
    name = f"pareto-{measure.key.replace('_', '-')}"
    note = "The line is the Pareto front." + (" Bars are 95 % confidence intervals over images." if measure.intervals else "")
    return to_themed_svg(figure, name=name, title=title, note=note, description=description)


def _value(row: Row, measure: PlotMeasure) -> float:
    return float(row[measure.key] * measure.scale)


def _interval(row: Row, measure: PlotMeasure) -> tuple[float, float] | None:
    low, high = row[f"{measure.key}_low"], row[f"{measure.key}_high"]
    return None if low is None or high is None else (low * measure.scale, high * measure.scale)


def _described(row: Row, measure: PlotMeasure) -> str:
    ends = _interval(row, measure) if measure.intervals else None
    between = f" [{', '.join(measure.pattern.format(end) for end in ends)}]" if ends else ""
    return (
        f"{shown_case(row)}: {shown_time(row['seconds_per_image'])}, {measure.pattern.format(_value(row, measure))} {measure.unit}{between}"
    )


def _name(figure: Figure, axes: Axes, rows: Sequence[Row], measure: PlotMeasure, chosen: Row | None, best: Sequence[int]) -> None:
    """Write each point's name beside it, with a thin line to a distant name."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # names must not change the layout of the axes
    texts = [
        axes.text(0, 0, shown_case(row), color=INK, fontsize=9.5, weight="bold" if row is chosen else "normal", ha="left", va="bottom")
        for row in rows
    ]
    to_display, from_display = axes.transData.transform, axes.transData.inverted().transform
    points: list[Point] = [_point(to_display((row["seconds_per_image"], _value(row, measure)))) for row in rows]
    sizes = [(box.width, box.height) for box in (text.get_window_extent() for text in texts)]
    inside = axes.get_window_extent()
    marks = [Box(left=x - 5, bottom=y - 5, right=x + 5, top=y + 5) for x, y in points]
    marks += [box for start, end in pairwise(points[index] for index in best) for box in boxes_along(start, end)]
    if measure.intervals:
        zero = _point(to_display((1, 0)))[1]
        marks += boxes_along((inside.x0, zero), (inside.x1, zero))
    for row, (x, _) in zip(rows, points, strict=True):
        if measure.intervals and (ends := _interval(row, measure)):
            low, high = (_point(to_display((row["seconds_per_image"], end)))[1] for end in ends)
            marks += boxes_along((x, low), (x, high))
    boxes = place_names(points, sizes, Box(left=inside.x0, bottom=inside.y0, right=inside.x1, top=inside.y1), marks)
    for text, box, (x, y) in zip(texts, boxes, points, strict=True):
        text.set_position(_point(from_display((box.left, box.bottom))))
        near = min(max(x, box.left), box.right), min(max(y, box.bottom), box.top)
        if math.dist(near, (x, y)) > LEADER_DISTANCE:
            (x0, y0), (x1, y1) = from_display((x, y)), from_display(near)
            axes.plot([x0, x1], [y0, y1], color=MUTED, linewidth=0.5, zorder=1)


def _point(pair: Iterable[float]) -> Point:
    x, y = map(float, pair)
    return x, y
