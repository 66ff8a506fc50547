"""What batches bring: rows of a sweep go in, a plot of images per second against images per run of the model comes out."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toolkit.report.axes import say_above
from toolkit.report.svg import ACCENT, INK, MUTED, Plot, finish, new_figure
from toolkit.stats.rows import Row

HEIGHT_IN = 3.9
APART = 13.0
"""Least distance of two names at the lines' ends."""


def throughput_plot(rows: Sequence[Row], chosen: Row | None) -> Plot | None:
    """Draw a line over batch sizes for every case with the other settings fixed; None where no case has two sizes."""
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
    axes.set_xlabel("images per run of the model")
    say_above(axes, "images per second (up is better)")
    stands_out = {name for name, line in lines.items() if any(row is chosen for row in line)}
    for name, line in lines.items():
        colour = ACCENT if name in stands_out else MUTED
        speeds = [row["images_per_second"] for row in line]
        axes.plot([row["batch_size"] for row in line], speeds, "o-", color=colour, linewidth=1.4, markersize=4)
    _name(figure, axes, {name: (line[-1]["batch_size"], line[-1]["images_per_second"]) for name, line in lines.items()}, stands_out)
    listed = [
        f"{name}: " + ", ".join(f"{row['images_per_second']:.2f} at {row['batch_size']}" for row in line) for name, line in lines.items()
    ]
    description = f"Images per second. {'; '.join(listed)}."
    note = "The other settings are fixed along a line."
    return finish(figure, name="throughput", title="Throughput against batch size", note=note, description=description)


def apart(heights: Sequence[float], least: float) -> list[float]:
    """Move heights away from each other until neighbours are `least` apart, keeping their order, none more than need be."""
    order = sorted(range(len(heights)), key=lambda place: heights[place])
    groups: list[tuple[list[int], float]] = []  # neighbours that touch, and the middle of where they wanted to be
    for place in order:
        members, middle = [place], heights[place]
        while groups and middle - least * (len(members) - 1) / 2 < groups[-1][1] + least * (len(groups[-1][0]) + 1) / 2:
            before, _ = groups.pop()
            members = before + members
            middle = sum(heights[member] for member in members) / len(members)
        groups.append((members, middle))
    moved = list(heights)
    for members, middle in groups:
        for step, member in enumerate(members):
            moved[member] = middle + least * (step - (len(members) - 1) / 2)
    return moved


def _lines(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return the rows of each case with everything but the batch size fixed, by name, smallest batch first."""
    rows = [row for row in rows if row["images_per_second"] is not None]
    differing = [key for key in ("threads", "forced_tokens") if len({row[key] for row in rows}) > 1]
    said = {"threads": "t{}", "forced_tokens": "{}tok"}
    lines: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row["batch_size"]):
        setting = ["natural" if row[key] is None else said[key].format(row[key]) for key in differing]
        lines.setdefault(" ".join([row["case"], *setting]), []).append(row)
    return lines


def _name(figure: Figure, axes: Axes, ends: dict[str, tuple[float, float]], stands_out: set[str]) -> None:
    """Write each line's name at its end."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # names must not move the axes they are placed in
    heights = [float(axes.transData.transform(end)[1]) for end in ends.values()]
    for (name, end), here, there in zip(ends.items(), heights, apart(heights, APART), strict=True):
        weight = "bold" if name in stands_out else "normal"
        axes.annotate(name, end, xytext=(8, there - here), textcoords="offset points", va="center_baseline", color=INK, weight=weight)
