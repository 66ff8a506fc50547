"""Draw the distribution of the time per image for each case."""

from collections.abc import Sequence

import numpy as np

from toolkit.report.axes import name_rows, scale_time, shown_time
from toolkit.report.svg import ACCENT, INK, MUTED, PAPER, Plot, new_figure, to_themed_svg

ROW_IN, HEAD_IN = 0.27, 0.75
TICKS = 40
"""Number of quantiles that are drawn per case, for any number of images."""


def spread_plot(cases: Sequence[str], chosen: str | None, seconds: Sequence[Sequence[float]]) -> Plot:
    """Draw the quantiles of each case's seconds per image, with median and 90th percentile."""
    figure, (axes,) = new_figure(HEAD_IN + ROW_IN * len(cases))
    quantiles = (np.arange(TICKS) + 0.5) / TICKS
    for index, (case, times) in enumerate(zip(cases, seconds, strict=True)):
        colour = ACCENT if case == chosen else MUTED
        axes.vlines(np.quantile(times, quantiles), index - 0.26, index + 0.26, color=colour, linewidth=0.9, alpha=0.5)
        axes.plot([np.median(times)], [index], "o", color=colour, markersize=7, markeredgecolor=PAPER)
        axes.plot([np.quantile(times, 0.9)], [index], "|", color=INK, markersize=12, markeredgewidth=1.4)
    scale_time(axes, [time for times in seconds for time in times])
    name_rows(axes, cases, chosen)
    axes.grid(visible=False, axis="y")
    name, title = "spread", "Distribution of the time per image"
    note = f"Thin marks are {TICKS} quantiles over images and repeats. The dot is the median; the bold mark is the 90th percentile."
    described = [
        f"{case}: median {shown_time(float(np.median(times)))}, 90th percentile {shown_time(float(np.quantile(times, 0.9)))}, "
        f"from {shown_time(min(times))} to {shown_time(max(times))}"
        for case, times in zip(cases, seconds, strict=True)
    ]
    description = "; ".join(described) + "."
    return to_themed_svg(figure, name=name, title=title, note=note, description=description)
