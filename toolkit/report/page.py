"""Write the report page: one HTML file that loads no other file."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from toolkit.datasets import Dataset
from toolkit.records.record import BASELINE, Record
from toolkit.records.record_file import to_lines
from toolkit.records.settings import setting_of
from toolkit.report.axes import shown_time
from toolkit.report.captions import base_case, comparisons
from toolkit.report.plots import make_plots
from toolkit.report.recommendation import UNSTABLE, recommend
from toolkit.report.reproduction import commands
from toolkit.report.theme import DARK, LIGHT
from toolkit.report.thumbnails import thumbnails
from toolkit.stats.rows import Row, make_rows
from toolkit.tables.columns import shown_case
from toolkit.tables.footnotes import facts
from toolkit.tables.markdown import marked
from toolkit.tables.report_tables import Sheet, sheets
from toolkit.tables.words import Words, words_of

MAX_CARDS = 200
"""Maximum number of images with captions; a larger page is slow."""

SECTIONS = {"why": "Why", "tables": "Figures", "plots": "Plots", "captions": "Captions", "facts": "Reproduce"}


@dataclass(frozen=True)
class Tile:
    """A figure at the top of the page."""

    name: str
    value: str
    note: str


def render_html(records: Sequence[Record], dataset: Dataset | None = None, history: Sheet | None = None) -> str:
    """Return the page.

    Args:
        records: Of one run.
        dataset: The images of the records, for thumbnails; None: captions without images.
        history: A table of this run and of earlier ones, shown first.
    """
    rows = make_rows(records)
    words = words_of(records)
    advice = recommend(rows, words)
    of_setting = [record for record in records if _has_setting(record, advice.chosen or rows[0])]
    compared = comparisons(of_setting)
    cards = compared[:MAX_CARDS]
    indices = [card.index for card in cards]
    headline, _, rest = advice.sentence.partition(": ")
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(read_resource("page.html"))
    return page.render(
        advice=advice,
        headline=(headline[0].upper() + headline[1:], rest),
        subject=_subject(records, words),
        words=words,
        sections=[(anchor, words.of_task(name)) for anchor, name in SECTIONS.items() if cards or anchor != "captions"],
        tiles=_tiles(advice.chosen, words),
        notices=_notices(rows),
        sheets=[_texts(sheet, advice.chosen) for sheet in (*([history] if history else []), *sheets(records, rows))],
        plots=make_plots(records, rows, advice.chosen),
        cards=cards,
        left_out=len(compared) - len(cards),
        base=base_case(of_setting),
        compared=list(cards[0].distances) if cards else [],
        images=thumbnails(dataset, indices) if dataset else {},
        references={index: dataset.images[index].texts for index in indices} if dataset else {},
        facts=facts(records).splitlines(),
        checkpoint=next((record.subject.checkpoint_sha256 for record in records if record.subject), None),
        commands=commands(records),
        raw=base64.b64encode(to_lines(records)).decode("ascii"),
        colours=colours(),
        style=read_resource("page.css"),
        script=read_resource("page.js"),
    )


def read_resource(name: str) -> str:
    """Return the content of a file beside this module."""
    return (files("toolkit.report") / name).read_text(encoding="utf-8")


def _has_setting(record: Record, row: Row) -> bool:
    """Return whether a record has the setting of a row; captions and most plots show one setting of a sweep."""
    return tuple(vars(setting_of(record)).values()) == (row["batch_size"], row["threads"], row["forced_tokens"])


def _subject(records: Sequence[Record], words: Words) -> str:
    host, work = records[0].host, records[0].workload
    return f"{work.images} {words.sample}s of {work.dataset}, {host.cpu}, {host.cores} cores"


def _tiles(row: Row | None, words: Words) -> list[Tile]:
    """Return the measured figures of the chosen row."""
    if row is None:
        return []
    low, high = row["seconds_per_image_low"], row["seconds_per_image_high"]
    speed = (
        ""
        if row["speedup"] is None
        else f"{row['speedup']:.2f}x [{row['speedup_low']:.2f}, {row['speedup_high']:.2f}] of {BASELINE}'s speed"
    )
    tiles = [
        Tile(
            f"time per {words.sample}",
            shown_time(row["seconds_per_image"]),
            speed or f"{shown_time(low)} to {shown_time(high)} over repeats",
        )
    ]
    for name, key, ratio in (("size", "artifact_bytes", "size_ratio"), ("peak memory", "peak_rss_bytes", "peak_rss_ratio")):
        if row[key] is not None:
            tiles.append(Tile(name, f"{row[key] / 1e6:.0f} MB", "" if row[ratio] is None else f"{row[ratio]:.0%} of {BASELINE}'s"))
    if row["drift"] is not None:
        ends = "" if row["drift_low"] is None else f"[{row['drift_low']:+.4f}, {row['drift_high']:+.4f}] "
        tiles.append(Tile("drift", f"{row['drift']:+.4f}", f"{ends}nat/token: {row['verdict_text']}"))
    elif row["probability_change"] is not None:
        tiles.append(Tile("change of probability", f"{row['probability_change']:.4f}", f"mean: {row['verdict_text']}"))
    elif row["exact_match"] is not None:
        tiles.append(Tile(f"same {words.text}s", f"{row['exact_match']:.0%}", f"as {BASELINE}"))
    return tiles


def _notices(rows: Sequence[Row]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the failed cases and the cases with unstable times, with reasons; titles follow a count."""
    notices = [
        (title, [(shown_case(row), row[key]) for row in rows if row[key]])
        for title, key in (("failed", "error"), ("with unstable times", UNSTABLE))
    ]
    return [(title, entries) for title, entries in notices if entries]


def _texts(sheet: Sheet, chosen: Row | None) -> dict[str, object]:
    """Return the texts of a table: for each row its cells, and whether it is the chosen row."""
    columns = [marked(column, sheet.rows) for column in sheet.columns]
    lines = [(cells, row is chosen) for cells, row in zip(zip(*columns, strict=True), sheet.rows, strict=True)]
    return {"title": sheet.title, "note": sheet.note, "head": [column.title for column in sheet.columns], "lines": lines}


def colours() -> str:
    """Return the CSS variables: light by default and in print, dark by the system's or the reader's choice."""
    light, dark = (
        "".join(f"--{name}: {colour}; " for name, colour in colours.items()) + f"color-scheme: {scheme};"
        for scheme, colours in (("light", LIGHT), ("dark", DARK))
    )
    return (
        f":root {{ {light} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root:not([data-theme=light]) {{ {dark} }} }}\n"
        f":root[data-theme=dark] {{ {dark} }}\n"
        f"@media print {{ :root:root:root {{ {light} }} }}"
    )
