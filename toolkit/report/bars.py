"""Lengths side by side: cases with values go in, a plot of horizontal bars comes out, each with its figure at the end."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from toolkit.report.axes import name_rows, say_above
from toolkit.report.svg import ACCENT, INK, MUTED, Plot, finish, new_figure

ROW_IN, HEAD_IN = 0.27, 0.45
THICKNESS = 0.62
ROOM = 1.32
"""Of the longest bar: where its figure stands."""


@dataclass(frozen=True, kw_only=True)
class Bars:
    """One panel."""

    title: str
    unit: str
    values: Sequence[float | None]
    """One for each case; None where it was not measured."""
    pattern: str = "{:.0f}"


@dataclass(frozen=True, kw_only=True)
class Part:
    """One stage of a stack."""

    title: str
    colour: str
    values: Sequence[float]
    """One for each case."""


def bars_plot(name: str, title: str, note: str, cases: Sequence[str], chosen: str | None, panels: Sequence[Bars]) -> Plot:
    """Draw a panel of bars for each measure, the cases in rows from the top; the chosen one stands out."""
    figure, all_axes = new_figure(HEAD_IN + ROW_IN * len(cases), len(panels))
    for axes, panel in zip(all_axes, panels, strict=True):
        _rows(axes, cases, chosen)
        say_above(axes, f"{panel.title}, {panel.unit}")
        known = [value for value in panel.values if value is not None]
        axes.set_xlim(0, max(known, default=1.0) * ROOM or 1.0)
        for place, (case, value) in enumerate(zip(cases, panel.values, strict=True)):
            axes.barh(place, value or 0.0, height=THICKNESS, color=ACCENT if case == chosen else MUTED, alpha=1 if case == chosen else 0.55)
            _figure_at(axes, value or 0.0, place, "not measured" if value is None else panel.pattern.format(value), bold=case == chosen)
    described = [
        f"{case}: " + ", ".join(f"{panel.title} {_said(panel.values[place], panel.pattern)} {panel.unit}" for panel in panels)
        for place, case in enumerate(cases)
    ]
    description = "; ".join(described) + "."
    return finish(figure, name=name, title=title, note=note, description=description)


def stack_plot(name: str, title: str, note: str, cases: Sequence[str], chosen: str | None, parts: Sequence[Part], pattern: str) -> Plot:
    """Draw a bar for each case, cut into parts that are named above, and their sum at the end."""
    figure, (axes,) = new_figure(HEAD_IN + ROW_IN * (len(cases) + 1))
    _rows(axes, cases, chosen)
    totals = [sum(part.values[place] for part in parts) for place in range(len(cases))]
    axes.set_xlim(0, max(totals) * 1.16 or 1.0)
    for place, case in enumerate(cases):
        start = 0.0
        for part in parts:
            axes.barh(place, part.values[place], left=start, height=THICKNESS, color=part.colour)
            start += part.values[place]
        _figure_at(axes, totals[place], place, pattern.format(totals[place]), bold=case == chosen)
    _key(axes, parts)
    described = [
        f"{case}: " + ", ".join(f"{part.title} {pattern.format(part.values[place])}" for part in parts) for place, case in enumerate(cases)
    ]
    description = "; ".join(described) + "."
    return finish(figure, name=name, title=title, note=note, description=description)


def _said(value: float | None, pattern: str) -> str:
    return "not measured" if value is None else pattern.format(value)


def _rows(axes: Axes, cases: Sequence[str], chosen: str | None) -> None:
    """Set up rows of cases; columns need no scale, for every bar has its figure."""
    name_rows(axes, cases, chosen)
    axes.grid(visible=False)
    axes.xaxis.set_visible(False)


def _figure_at(axes: Axes, x: float, y: float, text: str, *, bold: bool) -> None:
    axes.annotate(
        text, (x, y), xytext=(4, 0), textcoords="offset points", va="center_baseline", color=INK, weight="bold" if bold else "normal"
    )


def _key(axes: Axes, parts: Sequence[Part]) -> None:
    """Name the parts above the bars, each in its colour, one after the other."""
    previous = axes.annotate("", (0, 1), xycoords="axes fraction", xytext=(0, 8), textcoords="offset points")
    for part in parts:
        mark = axes.annotate("■ ", (1, 0), xycoords=previous, va="bottom", color=part.colour, fontsize=10)
        previous = axes.annotate(f"{part.title}   ", (1, 0), xycoords=mark, va="bottom", color=INK, fontsize=10)
