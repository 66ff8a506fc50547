"""Keep README's generated tables and images equal to committed records: `python -m tests.readme` rewrites them, a test compares.

Records live in tests/golden/published/<name>.jsonl; the README marks where each table and each image stands. An image is a file beside
its records. Its bytes depend on matplotlib's version, so what is compared is all that it says: title, description, names, numbers.
"""

import re
from functools import cache
from html import escape
from pathlib import Path
from xml.etree import ElementTree

from tests.fuzz import tally
from tests.paths import ROOT
from toolkit.bench.peers.table import render_peers
from toolkit.records.record import Record, read_records
from toolkit.report.plots import first_plot
from toolkit.report.svg import Plot, standalone
from toolkit.report.theme import DARK, LIGHT
from toolkit.stats.rows import check_comparable
from toolkit.tables.footnotes import facts
from toolkit.tables.render import render_markdown, render_table

README = ROOT / "README.md"
PUBLISHED = ROOT / "tests" / "golden" / "published"
PEERS = "peers"
"""This table joins two files of records: its own and `peers-quality`."""
GROWTH = "growth"
"""Prefix of the names of sweeps, and the table that is shown of each, with the facts."""
FUZZ = "fuzz"
"""The table of what `make fuzz` kept."""
MARKED = re.compile(r"(<!-- (?P<kind>table|image) (?P<name>[a-z-]+) -->\n).*?(?P<end><!-- end -->)", re.DOTALL)


def rendered(text: str) -> str:
    """Return the README's text with every marked table and image made from its records."""

    def part(match: re.Match[str]) -> str:
        made = {"table": table, "image": image}[match["kind"]](match["name"])
        return f"{match[1]}{made}{match['end']}"

    return MARKED.sub(part, text)


def table(name: str) -> str:
    """Return a table's Markdown."""
    if name == FUZZ:
        return tally.render(PUBLISHED / f"{name}.json")
    if name.startswith(f"{GROWTH}-"):
        return f"{render_table(published(name), GROWTH, 'md')}\n{facts(published(name))}\n"
    return render_peers(published(name), published(f"{name}-quality")) if name == PEERS else render_markdown(published(name))


def image(name: str) -> str:
    """Return the element that shows an image, with what it shows in words."""
    shown = escape(f"{plot(name).title}. {plot(name).description}")
    return f'<img src="{file_of(name).relative_to(ROOT).as_posix()}" width="620" alt="{shown}">\n'


def images(text: str) -> list[str]:
    """Return the names of the README's images."""
    return [match["name"] for match in MARKED.finditer(text) if match["kind"] == "image"]


def file_of(name: str) -> Path:
    """Return where an image is kept."""
    return PUBLISHED / f"{name}.svg"


@cache
def plot(name: str) -> Plot:
    """Draw an image."""
    drawn = first_plot(published(name))
    assert drawn is not None, f"{name}: nothing to compare"
    return drawn


def said(svg: str) -> list[str]:
    """Return all that an image says, in its order."""
    return [
        "".join(element.itertext()) for element in ElementTree.fromstring(svg).iter() if element.tag.endswith(("title", "desc", "text"))
    ]


def published(name: str) -> list[Record]:
    """Read committed records."""
    path = PUBLISHED / f"{name}.jsonl"
    records = read_records(path)
    check_comparable(records, path.name)
    return records


if __name__ == "__main__":
    for name in images(README.read_text()):
        file_of(name).write_text(standalone(plot(name), LIGHT, DARK), encoding="utf-8")
    README.write_text(rendered(README.read_text()))
