"""Draw images per second against the batch size."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toolkit.records.settings import value_label
from toolkit.report.axes import label_above
from toolkit.report.svg import ACCENT, INK, MUTED, Plot, new_figure, to_themed_svg
from toolkit.stats.rows import Row

HEIGHT_IN = 3.9
NAME_DISTANCE = 13.0
"""Minimum distance of two names at the ends of the lines."""


def throughput_plot(rows: Sequence[Row], chosen: Row | None) -> Plot | None:
    """Draw one line per case and other setting; return None if no line has two batch sizes."""
    lines = {name: line for name, line in _lines(rows).items() if len(line) > 1}
    if not lines:
        return None
    figure, (axes,) = new_figure(HEIGHT_IN)
    sizes = sorted({row["batch_size"] for line in lines.values() for row in line})
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.set_xlim(sizes[0] / 1.1, sizes[-1] * (sizes[-1] / sizes[0]) ** 0.5)  # a third of the width for names
    axes.set_ylim(0, 1.06 * max(row["images_per_second"] for line in lines.values() for row in line))
    axes.set_xlabel("batch size")
    label_above(axes, "images per second (up is better)")
    highlighted = {name for name, line in lines.items() if any(row is chosen for row in line)}
    for name, line in lines.items():
        colour = ACCENT if name in highlighted else MUTED
        speeds = [row["images_per_second"] for row in line]
        axes.plot([row["batch_size"] for row in line], speeds, "o-", color=colour, linewidth=1.4, markersize=4)
    _name(figure, axes, {name: (line[-1]["batch_size"], line[-1]["images_per_second"]) for name, line in lines.items()}, highlighted)
    described = [
        f"{name}: " + ", ".join(f"{row['images_per_second']:.2f} at {row['batch_size']}" for row in line) for name, line in lines.items()
    ]
    description = f"Images per second. {'; '.join(described)}."
    note = "Each line is one case with one number of threads and one caption length."
    return to_themed_svg(figure, name="throughput", title="Throughput against batch size", note=note, description=description)


def move_apart(heights: Sequence[float], distance: float) -> list[float]:
    """Move heights as little as possible, keeping their order, so that neighbours have at least the given distance."""
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    groups: list[tuple[list[int], float]] = []  # indices of touching neighbours, and the mean of their heights
    for index in order:
        members, middle = [index], heights[index]
        while groups and middle - distance * (len(members) - 1) / 2 < groups[-1][1] + distance * (len(groups[-1][0]) + 1) / 2:
            before, _ = groups.pop()
            members = before + members
            middle = sum(heights[member] for member in members) / len(members)
        groups.append((members, middle))
    moved = list(heights)
    for members, middle in groups:
        for step, member in enumerate(members):
            moved[member] = middle + distance * (step - (len(members) - 1) / 2)
    return moved


def _lines(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return name of a line → rows of a case that differ only in batch size, smallest batch first."""
    rows = [row for row in rows if row["images_per_second"] is not None]
    differing = [(key, axis) for key, axis in (("threads", "threads"), ("forced_tokens", "tokens")) if len({row[key] for row in rows}) > 1]
    lines: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row["batch_size"]):
        setting = [value_label(row[key], axis) for key, axis in differing]
        lines.setdefault(" ".join([row["case"], *setting]), []).append(row)
    return lines


def _name(figure: Figure, axes: Axes, ends: dict[str, tuple[float, float]], highlighted: set[str]) -> None:
    """Write the name of each line at its end."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # names must not change the layout of the axes
    heights = [float(axes.transData.transform(end)[1]) for end in ends.values()]
    for (name, end), height, moved in zip(ends.items(), heights, move_apart(heights, NAME_DISTANCE), strict=True):
        weight = "bold" if name in highlighted else "normal"
        axes.annotate(name, end, xytext=(8, moved - height), textcoords="offset points", va="center_baseline", color=INK, weight=weight)
