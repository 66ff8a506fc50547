"""Matplotlib figures go in; SVG text that a page can hold comes out: themed by CSS variables, readable by a screen reader.

A figure is drawn in placeholder colours, one for each name of `COLOURS`; each becomes `var(--name)` here, so that one drawing serves
light, dark and print. Text stays text, in the page's font. Names of elements get the plot's own prefix, since a page holds several.
"""

import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

NAMESPACE = "http://www.w3.org/2000/svg"
LINKS = "http://www.w3.org/1999/xlink"
WIDTH_IN = 5.2
"""Of every figure: 374 units, so that text of 10 units is 14 px in a column of 540 px and near 10 px on a phone."""

COLOURS = ("paper", "ink", "muted", "rule", "accent", "first", "second", "third", "fourth")
"""What a figure may be drawn in; the page says what each looks like in either theme."""

PAPER, INK, MUTED, RULE, ACCENT, FIRST, SECOND, THIRD, FOURTH = (f"#0100{place:02x}" for place in range(len(COLOURS)))
"""Placeholders; no figure uses such a colour by chance."""

SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 10,
    "font.family": "DejaVu Sans",
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
}
"""DejaVu Sans, which matplotlib ships, is wider than the fonts of browsers: what fits in it fits in them."""

_REWRITES: tuple[tuple[str, str | Callable[["re.Match[str]"], str]], ...] = (
    (r"#0100([0-9a-f]{2})", lambda match: f"var(--{COLOURS[int(match[1], 16)]})"),
    (r"font-family: [^;]*;?", ""),
    (r"font: ((?:\w+ )*?)(\d\w*) ([\d.]+px) [^;]*", r"font-weight: \2; font-size: \3"),
)
"""What attributes of matplotlib's elements become."""


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A figure on a page."""

    name: str
    title: str
    note: str
    """How to read it, in a sentence."""
    description: str
    """What it shows, with its figures: for those who do not see it."""
    svg: str


def new_figure(height_in: float, panels: int = 1) -> tuple[Figure, list[Axes]]:
    """Return an empty figure of panels side by side, which share their rows."""
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained", facecolor="none", dpi=72)
        axes = figure.subplots(1, panels, sharey=True, squeeze=False)
    return figure, list(axes[0])


def finish(figure: Figure, *, name: str, title: str, note: str, description: str) -> Plot:
    """Return a figure that is drawn as a plot of a page."""
    text = io.StringIO()
    with matplotlib.rc_context({**SETTINGS, "svg.hashsalt": name}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    ElementTree.register_namespace("", NAMESPACE)
    ElementTree.register_namespace("xlink", LINKS)
    root = ElementTree.fromstring(text.getvalue())  # noqa: S314 - matplotlib's output of the line above
    for element in root.iter():
        _adopt(element, name)
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.attrib |= {"role": "img", "aria-labelledby": f"{name}-title {name}-text"}
    for tag, kind, content in (("desc", "text", description), ("title", "title", title)):
        element = ElementTree.Element(f"{{{NAMESPACE}}}{tag}", {"id": f"{name}-{kind}"})
        element.text = content
        root.insert(0, element)
    return Plot(name=name, title=title, note=note, description=description, svg=ElementTree.tostring(root, encoding="unicode"))


def standalone(plot: Plot, light: Mapping[str, str], dark: Mapping[str, str]) -> str:
    """Return the SVG as a file of its own, which carries both themes.

    Args:
        plot: What to draw.
        light: Colour of each of `COLOURS`.
        dark: Likewise, where the reader's system is dark.
    """
    sheet = (
        f"svg{{{_variables(light)}background:var(--paper);font-family:system-ui,sans-serif}}"
        f"@media (prefers-color-scheme:dark){{svg{{{_variables(dark)}}}}}"
    )
    end = plot.svg.index(">") + 1
    return f"{plot.svg[:end]}<style>{sheet}</style>{plot.svg[end:]}\n"


def _variables(colours: Mapping[str, str]) -> str:
    return "".join(f"--{name}:{colours[name]};" for name in COLOURS)


def _adopt(element: ElementTree.Element, name: str) -> None:
    """Give an element its colours, its font and its name within the page; names that nothing refers to go."""
    if element.tag == f"{{{NAMESPACE}}}g":
        element.attrib.pop("id", None)
    for style in element.findall(f"{{{NAMESPACE}}}style"):
        element.remove(style)  # it would hold for the whole page
    for key, value in element.attrib.items():
        for pattern, replacement in _REWRITES:
            value = re.sub(pattern, replacement, value)
        if key == "id" or (key == f"{{{LINKS}}}href" and value.startswith("#")):
            value = f"#{name}-{value[1:]}" if value.startswith("#") else f"{name}-{value}"
        element.attrib[key] = value.replace("url(#", f"url(#{name}-")
    for text in ("text", "tail"):
        if not (getattr(element, text) or "").strip():
            setattr(element, text, None)
