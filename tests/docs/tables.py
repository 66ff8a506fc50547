"""Generated tables and images of results, from the committed records of each host: tests/golden/published/HOST/NAME.jsonl.

A page of docs/results/HOST renders its host's records; elsewhere a name starts with the host. An image is a file beside its page. Its bytes
depend on matplotlib's version, so a test compares its texts: title, description, names, numbers.
"""

from functools import cache
from html import escape
from pathlib import Path
from xml.etree import ElementTree

from tests.docs.pages import DOCS, MARKED, Renderer, pages
from tests.docs.reference import table as plain_table
from tests.fuzz import tally
from tests.load import page as serving
from tests.paths import GOLDEN
from tests.quality import page as quality_page
from tests.scale import page as scale
from toolkit.bench.peers.table import render_peers
from toolkit.records.record import Record
from toolkit.records.record_file import read_records
from toolkit.records.throughput import read_throughput
from toolkit.report.plots import first_plot
from toolkit.report.svg import Plot, standalone
from toolkit.report.theme import DARK, LIGHT
from toolkit.stats.rows import check_comparable, make_rows
from toolkit.tables import throughput
from toolkit.tables.footnotes import facts
from toolkit.tables.render import render_markdown, render_table

PUBLISHED = GOLDEN / "published"
RESULTS = DOCS / "results"
PEERS = "peers"
"""This table joins two files of records: its own and `peers-quality`."""
THROUGHPUT = "throughput"
"""Name of the table of images/s, whose records have a format of their own."""
GROWTH = "growth"
"""Prefix of the names of sweeps, and the table that is shown of each, with the facts."""
FILES = {"distribute": scale.render, "fuzz": tally.render, "serving": serving.render}
"""Tables that do not belong to a host: name of their record → function that renders it."""
OVERVIEW = ("hf-fp32", "pytorch-int8", "onnx-fp32", "onnx-int8", "onnx-int4", "onnx-int8-fast")
"""Cases of the README's table."""


def table(name: str, page: Path) -> str:
    """Return the Markdown of a host's table."""
    if name in FILES:
        return FILES[name](PUBLISHED / f"{name}.json")
    host = page.parent.name
    if name == THROUGHPUT:
        return throughput.render_markdown(read_throughput(PUBLISHED / host / f"{name}.jsonl"))
    records = published(host, name)
    if name.startswith(f"{GROWTH}-"):
        return f"{render_table(records, GROWTH, 'md')}\n{facts(records)}\n"
    return render_peers(records, published(host, f"{name}-quality")) if name == PEERS else render_markdown(records)


def overview(host: str, _: Path) -> str:
    """Return the README's table: speed, memory and size of BLIP-base's shapes, and the drift of the shipped model."""
    rows = {row["case"]: row for row in make_rows(published(host, "base"))}
    drifts = {row["case"]: row["drift"] for row in make_rows(published(host, "quality"))}
    return plain_table(
        ("case", "s/image", "speed-up", "peak MB", "size MB", "drift, nat/token"),
        (
            (
                f"`{case}`" if case != OVERVIEW[0] else "transformers FP32",
                f"{rows[case]['seconds_per_image']:.2f}",
                f"{rows[case]['speedup'] or 1:.1f}x",
                f"{rows[case]['peak_rss_bytes'] / 1e6:.0f}",
                f"{rows[case]['artifact_bytes'] / 1e6:.0f}",
                f"{round(drifts[case], 4) + 0.0:+.4f}" if case != OVERVIEW[0] else "0",
            )
            for case in OVERVIEW
        ),
    )


def hosts(_: str, __: Path) -> str:
    """Return seconds per image and speed-up of each case on each host."""
    rows_of = {folder.name: {row["case"]: row for row in make_rows(published(folder.name, "base"))} for folder in _hosts()}
    cases = dict.fromkeys(case for rows in rows_of.values() for case in rows)
    cells = [(f"`{case}`", *(_time(rows[case]) if case in rows else "-" for rows in rows_of.values())) for case in cases]
    machines = {name: published(name, "base")[0] for name in rows_of}
    lines = [
        f"- `{name}`: {first.host.cpu} ({', '.join(first.host.cpu_features)}), {first.host.cores} cores, {first.host.system}, "
        f"measured {(first.measured_at or '')[:10]}\n"
        for name, first in machines.items()
    ]
    return plain_table(("case", *(f"`{name}`, s/image" for name in rows_of)), cells) + "\n" + "".join(lines)


def _time(row: dict[str, float]) -> str:
    return f"{row['seconds_per_image']:.3f} ({row['speedup'] or 1:.2f}x)"


def _hosts() -> list[Path]:
    return sorted(folder for folder in PUBLISHED.iterdir() if (folder / "base.jsonl").is_file())


def image(name: str, page: Path) -> str:
    """Return the element that shows an image of a host, with its figures as text."""
    host, plain = name.split(":") if ":" in name else (page.parent.name, name)
    path = "" if page.parent == RESULTS / host else f"docs/results/{host}/"
    shown = escape(f"{plot(host, plain).title}. {plot(host, plain).description}")
    return f'<img src="{path}{plain}.svg" width="620" alt="{shown}">\n'


def images() -> list[tuple[str, str]]:
    """Return host and name of every image of the results."""
    return [
        (page.parent.name, match["name"])
        for page in pages()
        for match in MARKED.finditer(page.read_text(encoding="utf-8"))
        if match["kind"] == "image" and page.is_relative_to(RESULTS)
    ]


def file_of(host: str, name: str) -> Path:
    """Return the path of an image."""
    return RESULTS / host / f"{name}.svg"


@cache
def plot(host: str, name: str) -> Plot:
    """Draw an image."""
    drawn = first_plot(published(host, name))
    assert drawn is not None, f"{host} {name}: nothing to compare"
    return drawn


def texts(svg: str) -> list[str]:
    """Return all texts of an image, in its order."""
    return [
        "".join(element.itertext()) for element in ElementTree.fromstring(svg).iter() if element.tag.endswith(("title", "desc", "text"))
    ]


def published(host: str, name: str) -> list[Record]:
    """Read committed records."""
    path = PUBLISHED / host / f"{name}.jsonl"
    records = read_records(path)
    check_comparable(records, path.name)
    return records


def write_images() -> None:
    """Draw all images into their files."""
    for host, name in images():
        file_of(host, name).write_text(standalone(plot(host, name), LIGHT, DARK), encoding="utf-8")


def section(name: str, _: Path) -> str:
    """Return a section of the page on quality."""
    return quality_page.show(name, PUBLISHED / "quality")


RENDERERS: dict[str, Renderer] = {quality_page.KIND: section, "table": table, "overview": overview, "hosts": hosts, "image": image}
