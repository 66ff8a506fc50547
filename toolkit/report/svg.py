"""Convert matplotlib figures to SVG with CSS colours, for light and dark themes and for screen readers.

A figure is drawn in placeholder colours, one per name in `COLOURS`. Each placeholder becomes `var(--name)`, so that one drawing works in
light, dark and print. Text stays text, in the page's font. Element ids get the plot's name as a prefix, because a page has several plots.
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
"""Width of all figures: 374 units. Text of 10 units is then 14 px high in a column of 540 px, and about 10 px on a phone."""

COLOURS = ("paper", "ink", "muted", "rule", "accent", "first", "second", "third", "fourth", "fifth")
"""Names of the colours that a figure may use; the page defines them for both themes."""

PAPER, INK, MUTED, RULE, ACCENT, FIRST, SECOND, THIRD, FOURTH, FIFTH = (f"#0100{index:02x}" for index in range(len(COLOURS)))
"""Placeholder colours; matplotlib's defaults do not contain them."""

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
"""DejaVu Sans ships with matplotlib. It is wider than browsers' fonts, so text that fits in it fits in theirs."""

_REWRITES: tuple[tuple[str, str | Callable[["re.Match[str]"], str]], ...] = (
    (r"#0100([0-9a-f]{2})", lambda match: f"var(--{COLOURS[int(match[1], 16)]})"),
    (r"font-family: [^;]*;?", ""),
    (r"font: ((?:\w+ )*?)(\d\w*) ([\d.]+px) [^;]*", r"font-weight: \2; font-size: \3"),
)
"""(Pattern, replacement) for the attributes of matplotlib's SVG elements."""


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A figure on a page."""

    name: str
    title: str
    note: str
    """How to read the plot."""
    description: str
    """Text alternative with all figures."""
    svg: str


def new_figure(height_in: float, panels: int = 1) -> tuple[Figure, list[Axes]]:
    """Return an empty figure with panels side by side, which share the y axis."""
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained", facecolor="none", dpi=72)
        axes = figure.subplots(1, panels, sharey=True, squeeze=False)
    return figure, list(axes[0])


def to_themed_svg(figure: Figure, *, name: str, title: str, note: str, description: str) -> Plot:
    """Convert a figure to a plot; see `Plot` for the texts.

    Args:
        figure: The figure, with the placeholder colours of this module.
        name: Id of the plot on its page.
        title: Heading.
        note: How to read the plot.
        description: Text alternative with all figures.
    """
    text = io.StringIO()
    with matplotlib.rc_context({**SETTINGS, "svg.hashsalt": name}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    ElementTree.register_namespace("", NAMESPACE)
    ElementTree.register_namespace("xlink", LINKS)
    root = ElementTree.fromstring(text.getvalue())  # noqa: S314 - matplotlib's output of the line above
    for element in root.iter():
        _rewrite_element(element, name)
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.attrib |= {"role": "img", "aria-labelledby": f"{name}-title {name}-text"}
    for tag, kind, content in (("desc", "text", description), ("title", "title", title)):
        element = ElementTree.Element(f"{{{NAMESPACE}}}{tag}", {"id": f"{name}-{kind}"})
        element.text = content
        root.insert(0, element)
    return Plot(name=name, title=title, note=note, description=description, svg=ElementTree.tostring(root, encoding="unicode"))


def standalone(plot: Plot, light: Mapping[str, str], dark: Mapping[str, str]) -> str:
    """Return the content of an SVG file with both themes.

    Args:
        plot: The plot.
        light: Name in `COLOURS` → colour.
        dark: Name in `COLOURS` → colour for dark systems.
    """
    sheet = (
        f"svg{{{_variables(light)}background:var(--paper);font-family:system-ui,sans-serif}}"
        f"@media (prefers-color-scheme:dark){{svg{{{_variables(dark)}}}}}"
    )
    end = plot.svg.index(">") + 1
    return f"{plot.svg[:end]}<style>{sheet}</style>{plot.svg[end:]}\n"


def _variables(colours: Mapping[str, str]) -> str:
    return "".join(f"--{name}:{colours[name]};" for name in COLOURS)


def _rewrite_element(element: ElementTree.Element, name: str) -> None:
    """Replace colours and fonts of an element, prefix its id, and remove ids of groups, which nothing refers to."""
    if element.tag == f"{{{NAMESPACE}}}g":
        element.attrib.pop("id", None)
    for style in element.findall(f"{{{NAMESPACE}}}style"):
        element.remove(style)  # it would apply to the whole page
    for key, value in element.attrib.items():
        for pattern, replacement in _REWRITES:
            value = re.sub(pattern, replacement, value)
        if key == "id" or (key == f"{{{LINKS}}}href" and value.startswith("#")):
            value = f"#{name}-{value[1:]}" if value.startswith("#") else f"{name}-{value}"
        element.attrib[key] = value.replace("url(#", f"url(#{name}-")
    for text in ("text", "tail"):
        if not (getattr(element, text) or "").strip():
            setattr(element, text, None)
