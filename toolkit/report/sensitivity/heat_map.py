"""Draw a heat map of the drift of single layers: kinds of layers by their number in the model."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.patches import Rectangle

from toolkit.report.svg import ACCENT, RULE, Plot, new_figure, to_themed_svg

ROW_IN, HEAD_IN = 0.27, 0.75
FAINT = 0.06
"""Opacity of a layer without drift."""
PREFIXES = {"vision_model.encoder.N.": "vision ", "text_decoder.bert.encoder.N.": "text ", "text_decoder.cls.predictions.": "head "}
NUMBER = re.compile(r"\.(?:layers?)\.(\d+)\.")


def heat_map(rows: Sequence[Mapping[str, Any]]) -> Plot:
    """Draw the drift of each layer if only this layer is quantized; darker is more.

    Args:
        rows: `layer` and `only.drift` of each layer, as `toolkit sensitivity --json` prints them.
    """
    cells: dict[str, dict[int, float]] = {}
    for row in rows:
        match = NUMBER.search(row["layer"])
        kind = NUMBER.sub(".N.", row["layer"]) if match else row["layer"]
        cells.setdefault(_short(kind), {})[int(match[1]) if match else 0] = max(row["only"]["drift"], 0)
    kinds = sorted(cells)
    columns = 1 + max(column for each in cells.values() for column in each)
    largest = max((value for each in cells.values() for value in each.values()), default=0) or 1
    figure, (axes,) = new_figure(HEAD_IN + ROW_IN * len(kinds))
    for index, kind in enumerate(kinds):
        for column, value in cells[kind].items():
            opacity = FAINT + (1 - FAINT) * value / largest
            axes.add_patch(
                Rectangle((column - 0.46, index - 0.42), 0.92, 0.84, facecolor=ACCENT, edgecolor=RULE, linewidth=0.6, alpha=opacity)
            )
    axes.set_xlim(-0.6, columns - 0.4)
    axes.set_ylim(len(kinds) - 0.4, -0.6)
    axes.set_yticks(range(len(kinds)), kinds)
    axes.set_xticks(range(columns))
    axes.set_xlabel("number of the layer")
    axes.grid(visible=False)
    described = [f"{kind} {column}: {value:.4f}" for kind in kinds for column, value in sorted(cells[kind].items())]
    return to_themed_svg(
        figure,
        name="heat-map",
        title="Drift of single layers, nat/token",
        note=f"Only this layer is quantized. The darkest layer has {largest:.4f} nat/token.",
        description="; ".join(described) + ".",
    )


def _short(kind: str) -> str:
    """Return a kind of layer without the parts that all kinds of a component have."""
    for long, short in PREFIXES.items():
        kind = kind.replace(long, short)
    return kind
