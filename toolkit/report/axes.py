"""What several plots' axes have in common: rows named by case, and a logarithmic axis of seconds whose numbers carry their unit."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from toolkit.report.svg import INK, MUTED

TIME_STEPS = ((15.0, (1, 2, 3, 5)), (60.0, (1, 2, 5)), (math.inf, (1, 3)))
"""Up to which ratio of the axis' ends which numbers of a decade have room."""


def shown_time(seconds: float) -> str:
    """Write a time with three digits: 35.4 ms, 2.2 s."""
    return f"{seconds * 1e3:.3g} ms" if seconds < 0.9995 else f"{seconds:.3g} s"


def scale_time(axes: Axes, seconds: Sequence[float], room: float = 1.1) -> None:
    """Make the x axis one of times, wider than the given ones by a factor at both ends."""
    axes.set_xscale("log")
    axes.set_xlim(min(seconds) / room, max(seconds) * room)
    ratio = max(seconds) / min(seconds) * room**2
    axes.xaxis.set_major_locator(LogLocator(subs=next(steps for most, steps in TIME_STEPS if ratio <= most)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: shown_time(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("time per image (left is faster)")


def name_rows(axes: Axes, cases: Sequence[str], chosen: str | None) -> None:
    """Make the y axis one of cases from the top, the chosen one's name bold."""
    axes.set_yticks(range(len(cases)), cases)
    for label, case in zip(axes.get_yticklabels(), cases, strict=False):  # of panels side by side, only the leftmost has labels
        label.set(color=INK, weight="bold" if case == chosen else "normal")
    axes.set_ylim(len(cases) - 0.4, -0.6)
    for side in axes.spines.values():
        side.set_visible(False)


def say_above(axes: Axes, text: str) -> None:
    """Write what the figures are above the axes: a label beside the y axis would have to be turned."""
    axes.set_title(text, loc="left", fontsize=10, color=MUTED)
