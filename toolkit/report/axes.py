"""Axes that several plots share: rows of cases, and a logarithmic axis of times with units."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from toolkit.report.svg import INK, MUTED

TIME_STEPS = ((15.0, (1, 2, 3, 5)), (60.0, (1, 2, 5)), (math.inf, (1, 3)))
"""(Maximum ratio of the axis' ends, numbers per decade that have room for a tick)."""


def shown_time(seconds: float) -> str:
    """Return a time with three digits and its unit: 35.4 ms, 2.2 s."""
    return f"{seconds * 1e3:.3g} ms" if seconds < 0.9995 else f"{seconds:.3g} s"


def scale_time(axes: Axes, seconds: Sequence[float], room: float = 1.1) -> None:
    """Set up the x axis for times in seconds, with the margin factor `room` at both ends."""
    axes.set_xscale("log")
    axes.set_xlim(min(seconds) / room, max(seconds) * room)
    ratio = max(seconds) / min(seconds) * room**2
    axes.xaxis.set_major_locator(LogLocator(subs=next(steps for max_ratio, steps in TIME_STEPS if ratio <= max_ratio)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: shown_time(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("time per image (left is faster)")


def name_rows(axes: Axes, cases: Sequence[str], chosen: str | None) -> None:
    """Set up the y axis for cases from top to bottom; the name of the chosen case is bold."""
    axes.set_yticks(range(len(cases)), cases)
    for label, case in zip(axes.get_yticklabels(), cases, strict=False):  # only the leftmost of several panels has labels
        label.set(color=INK, weight="bold" if case == chosen else "normal")
    axes.set_ylim(len(cases) - 0.4, -0.6)
    for side in axes.spines.values():
        side.set_visible(False)


def label_above(axes: Axes, text: str) -> None:
    """Write the label of the y axis above the plot, because a label beside the axis would be rotated."""
    axes.set_title(text, loc="left", fontsize=10, color=MUTED)
