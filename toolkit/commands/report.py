"""`toolkit report`: benchmark records go in, a table comes out."""

from pathlib import Path

import click


@click.command(help="Make a table from benchmark records.", epilog="RECORDS is a .jsonl file that `toolkit bench` wrote.")
@click.argument("records", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--format", "layout", type=click.Choice(["md", "csv", "json"]), default="md", show_default=True)
def command(records: Path, layout: str) -> None:
    """Echo the table."""
    from toolkit.bench.record import read_records
    from toolkit.bench.render import RENDERERS
    from toolkit.bench.rows import check_comparable

    listed = read_records(records)
    check_comparable(listed, str(records))
    click.echo(RENDERERS[layout](listed), nl=False)
