"""How much single images differ: seconds per image of each case go in, a plot of their distributions comes out."""

from collections.abc import Sequence

import numpy as np

from toolkit.report.axes import name_rows, scale_time, shown_time
from toolkit.report.svg import ACCENT, INK, MUTED, PAPER, Plot, finish, new_figure

ROW_IN, HEAD_IN = 0.27, 0.75
TICKS = 40
"""Quantiles that are drawn: as many marks for each case, whatever the number of images."""


def spread_plot(cases: Sequence[str], chosen: str | None, seconds: Sequence[Sequence[float]]) -> Plot:
    """Draw each case's seconds per image as a row of marks, one for each fortieth of the images, and their median and p90."""
    figure, (axes,) = new_figure(HEAD_IN + ROW_IN * len(cases))
    quantiles = (np.arange(TICKS) + 0.5) / TICKS
    for place, (case, times) in enumerate(zip(cases, seconds, strict=True)):
        colour = ACCENT if case == chosen else MUTED
        axes.vlines(np.quantile(times, quantiles), place - 0.26, place + 0.26, color=colour, linewidth=0.9, alpha=0.5)
        axes.plot([np.median(times)], [place], "o", color=colour, markersize=7, markeredgecolor=PAPER)
        axes.plot([np.quantile(times, 0.9)], [place], "|", color=INK, markersize=12, markeredgewidth=1.4)
    scale_time(axes, [time for times in seconds for time in times])
    name_rows(axes, cases, chosen)
    axes.grid(visible=False, axis="y")
    name, title = "spread", "Time per image, image by image"
    note = f"A thin mark is a {TICKS}th of all images and repeats, the dot their median, the bold mark the time that 90 % stay below."
    listed = [
        f"{case}: median {shown_time(float(np.median(times)))}, 90 % below {shown_time(float(np.quantile(times, 0.9)))}, "
        f"from {shown_time(min(times))} to {shown_time(max(times))}"
        for case, times in zip(cases, seconds, strict=True)
    ]
    description = "; ".join(listed) + "."
    return finish(figure, name=name, title=title, note=note, description=description)
