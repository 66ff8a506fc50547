"""Write the table of peers from two files of records: one row per case.

    python -m toolkit.bench.peers.table SPEED.jsonl QUALITY.jsonl

Speed, memory and size come from the first file (BLIP-base's shapes), quality from the second (a trained checkpoint). Rows are joined by
the case's name.
"""

from collections.abc import Sequence
from pathlib import Path

import click

from runtimes.errors import ToolkitError
from toolkit.bench.peers.catalogue import PEERS, TRANSFORMERS
from toolkit.records.record import BASELINE, Record
from toolkit.records.record_file import read_records
from toolkit.stats.rows import Row, check_comparable, make_rows
from toolkit.tables.columns import BESIDE, CASE_WITH_MARK, COST, NOT_MEASURED, QUALITY, SCORES, SPEED, Column
from toolkit.tables.footnotes import facts
from toolkit.tables.markdown import table
from toolkit.tables.render import unstable_section

GRAPHS = {BASELINE: TRANSFORMERS, **{peer.name: peer.graph for peer in PEERS}}
OWN_GRAPHS = "ours"
SPEED_TITLES = ("s/image", "speed-up", "peak MB", "size MB")
QUALITY_TITLES = ("drift nat/token", "verdict", "same captions", "BLEU-4, change %", "CIDEr-D, change %")


def render_peers(speed: Sequence[Record], quality: Sequence[Record]) -> str:
    """Return the table, the unstable cases, the failures, and the footnotes of both runs."""
    rows, quality_rows = make_rows(speed), {row["case"]: row for row in make_rows(quality)}
    columns = [
        CASE_WITH_MARK,
        Column("whose graph", lambda row: GRAPHS.get(row["case"], OWN_GRAPHS)),
        *(column for column in (*SPEED, *COST) if column.title in SPEED_TITLES),
        *(_of(quality_rows, column) for column in (*QUALITY, *BESIDE, *SCORES) if column.title in QUALITY_TITLES),
    ]
    failures = [f"- {row['case']}: {row['error']}" for row in [*rows, *quality_rows.values()] if row["error"]]
    parts = [
        table(columns, [row for row in rows if row["seconds_per_image"] is not None]),
        *filter(None, [unstable_section(rows)]),
        *(["Failed:\n" + "\n".join(dict.fromkeys(failures))] if failures else []),
        f"Speed, memory and size:\n\n{facts(speed)}",
        f"Quality:\n\n{facts(quality)}",
    ]
    return "\n\n".join(parts) + "\n"


def _of(rows: dict[str, Row], column: Column) -> Column:
    """Return the column with the values of the same case in another report."""
    return Column(column.title, lambda row: column.cell(rows[row["case"]]) if row["case"] in rows else NOT_MEASURED)


@click.command(help="Make one table from records of peers' speed and quality.")
@click.argument("speed", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("quality", type=click.Path(dir_okay=False, path_type=Path))
def main(speed: Path, quality: Path) -> None:
    """Print the table."""
    try:
        runs = [read_records(path) for path in (speed, quality)]
        for path, records in zip((speed, quality), runs, strict=True):
            check_comparable(records, str(path))
    except ToolkitError as error:
        raise click.ClickException(str(error)) from error
    click.echo(render_peers(*runs), nl=False)


if __name__ == "__main__":
    main(prog_name="python -m toolkit.bench.peers.table")
