"""Write the page of `toolkit sensitivity`: a heat map and a table of layers in one HTML file that loads no other file."""

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, StrictUndefined

from toolkit.report.page import colours, read_resource
from toolkit.report.sensitivity.heat_map import heat_map


def render_sensitivity(result: Mapping[str, Any]) -> str:
    """Return the page of a result, as `toolkit sensitivity --json` prints it."""
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(read_resource("sensitivity.html"))
    return page.render(result=result, plot=heat_map(result["layers"]), text=_text, colours=colours(), style=read_resource("page.css"))


def _text(drift: Mapping[str, Any]) -> str:
    """Format a drift with its interval."""
    return f"{drift['drift']:+.4f} [{drift['drift_low']:+.4f}, {drift['drift_high']:+.4f}]"
