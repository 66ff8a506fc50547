"""`toolkit report`: benchmark records go in, a table comes out."""

from pathlib import Path

import click


@click.command(help="Make a table from benchmark records.", epilog="RECORDS is a .jsonl file that `toolkit bench` wrote.")
@click.argument("records", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--format", "layout", type=click.Choice(["md", "csv", "json"]), default="md", show_default=True)
@click.option("--table", type=click.Choice(["growth", "components"]), help="This table alone: growth over a sweep, or bytes of components.")
def command(records: Path, layout: str, table: str | None) -> None:
    """Echo the table."""
    from toolkit.bench.record import read_records
    from toolkit.bench.render import RENDERERS, render_table
    from toolkit.bench.rows import check_comparable

    listed = read_records(records)
    check_comparable(listed, str(records))
    click.echo(render_table(listed, table, layout) if table else RENDERERS[layout](listed), nl=False)
