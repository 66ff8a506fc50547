"""Draw horizontal bars, one per case, with the value at the end of each bar."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from toolkit.report.axes import label_above, name_rows
from toolkit.report.svg import ACCENT, INK, MUTED, Plot, new_figure, to_themed_svg

ROW_IN, HEAD_IN = 0.27, 0.45
THICKNESS = 0.62
ROOM = 1.32
"""Width of the axes relative to the longest bar, so that its value has room."""


@dataclass(frozen=True, kw_only=True)
class Bars:
    """A panel with one bar per case."""

    title: str
    unit: str
    values: Sequence[float | None]
    """One value per case; None if it was not measured."""
    pattern: str = "{:.0f}"


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One part of stacked bars."""

    title: str
    colour: str
    values: Sequence[float]
    """One value per case."""


def bars_plot(name: str, title: str, note: str, cases: Sequence[str], chosen: str | None, panels: Sequence[Bars]) -> Plot:
    """Draw one panel of bars per measure, with the cases from top to bottom; the chosen case is highlighted.

    Args:
        name: Id of the plot on its page.
        title: Heading.
        note: How to read the plot.
        cases: Names of the cases.
        chosen: The case to highlight; None for none.
        panels: One measure each, with one value per case.
    """
    figure, all_axes = new_figure(HEAD_IN + ROW_IN * len(cases), len(panels))
    for axes, panel in zip(all_axes, panels, strict=True):
        _rows(axes, cases, chosen)
        label_above(axes, f"{panel.title}, {panel.unit}")
        known = [value for value in panel.values if value is not None]
        axes.set_xlim(0, max(known, default=1.0) * ROOM or 1.0)
        for index, (case, value) in enumerate(zip(cases, panel.values, strict=True)):
            axes.barh(index, value or 0.0, height=THICKNESS, color=ACCENT if case == chosen else MUTED, alpha=1 if case == chosen else 0.55)
            _write_value(axes, value or 0.0, index, _value_text(value, panel.pattern), bold=case == chosen)
    described = [
        f"{case}: " + ", ".join(f"{panel.title} {_value_text(panel.values[index], panel.pattern)} {panel.unit}" for panel in panels)
        for index, case in enumerate(cases)
    ]
    description = "; ".join(described) + "."
    return to_themed_svg(figure, name=name, title=title, note=note, description=description)


def stack_plot(name: str, title: str, note: str, cases: Sequence[str], chosen: str | None, parts: Sequence[Segment], pattern: str) -> Plot:
    """Draw one stacked bar per case, with a legend above and the sum at the end.

    Args:
        name: Id of the plot on its page.
        title: Heading.
        note: How to read the plot.
        cases: Names of the cases.
        chosen: The case whose name is bold; None for none.
        parts: What the bars consist of, from left to right.
        pattern: Format of the sums.
    """
    figure, (axes,) = new_figure(HEAD_IN + ROW_IN * (len(cases) + 1))
    _rows(axes, cases, chosen)
    totals = [sum(part.values[index] for part in parts) for index in range(len(cases))]
    axes.set_xlim(0, max(totals) * 1.16 or 1.0)
    for index, case in enumerate(cases):
        start = 0.0
        for part in parts:
            axes.barh(index, part.values[index], left=start, height=THICKNESS, color=part.colour)
            start += part.values[index]
        _write_value(axes, totals[index], index, pattern.format(totals[index]), bold=case == chosen)
    _legend(axes, parts)
    described = [
        f"{case}: " + ", ".join(f"{part.title} {pattern.format(part.values[index])}" for part in parts) for index, case in enumerate(cases)
    ]
    description = "; ".join(described) + "."
    return to_themed_svg(figure, name=name, title=title, note=note, description=description)


def _value_text(value: float | None, pattern: str) -> str:
    return "not measured" if value is None else pattern.format(value)


def _rows(axes: Axes, cases: Sequence[str], chosen: str | None) -> None:
    """Set up rows of cases without a scale, because each bar has its value."""
    name_rows(axes, cases, chosen)
    axes.grid(visible=False)
    axes.xaxis.set_visible(False)


def _write_value(axes: Axes, x: float, y: float, text: str, *, bold: bool) -> None:
    axes.annotate(
        text, (x, y), xytext=(4, 0), textcoords="offset points", va="center_baseline", color=INK, weight="bold" if bold else "normal"
    )


def _legend(axes: Axes, parts: Sequence[Segment]) -> None:
    """Write the names of the parts above the bars, each in its colour."""
    previous = axes.annotate("", (0, 1), xycoords="axes fraction", xytext=(0, 8), textcoords="offset points")
    for part in parts:
        mark = axes.annotate("■ ", (1, 0), xycoords=previous, va="bottom", color=part.colour, fontsize=10)
        previous = axes.annotate(f"{part.title}   ", (1, 0), xycoords=mark, va="bottom", color=INK, fontsize=10)
