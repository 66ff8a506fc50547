"""`toolkit report`: benchmark records go in; a table or a page comes out."""

from pathlib import Path

import click

from runtimes.errors import RequestError
from toolkit.commands.options import guard_file, output_file, overwrite_option


@click.command(
    help="Make a table or a page from benchmark records.",
    epilog="RECORDS is a .jsonl file that `toolkit bench` wrote; several show change over time.",
)
@click.argument("records", nargs=-1, required=True, metavar="RECORDS...", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--format", "layout", type=click.Choice(["md", "csv", "json", "html"]), default="md", show_default=True)
@click.option("--table", type=click.Choice(["growth", "components"]), help="This table alone: growth over a sweep, or bytes of components.")
@click.option("--dataset", help="Of a page: the images, named as in `bench`.  [default: the shipped ones, where those were measured]")
@click.option("--images", type=click.Path(file_okay=False, path_type=Path), help="Likewise, a folder.")
@click.option("--no-images", is_flag=True, help="Of a page: captions without images.")
@output_file("Write here instead of to stdout; a page is one file that needs no other.")
@overwrite_option
def command(
    records: tuple[Path, ...],
    layout: str,
    table: str | None,
    dataset: str | None,
    images: Path | None,
    no_images: bool,
    output: Path | None,
    overwrite: bool,
) -> None:
    """Echo the report, or write it."""
    from toolkit.compare.history import history_sheet, newest, render_history
    from toolkit.compare.pairing import read_run
    from toolkit.report.file import require_report_extra, write_text
    from toolkit.tables.render import RENDERERS, render_table

    if layout == "html" and table:
        raise RequestError("a page has all tables: --table is of the other formats")
    if (dataset or images or no_images) and layout != "html":
        raise RequestError("--dataset, --images and --no-images are of a page: --format html")
    guard_file(output, overwrite=overwrite)
    runs = [read_run(path) for path in records]
    if layout == "html":
        require_report_extra()
        from toolkit.report.images import images_of
        from toolkit.report.page import render_html

        listed = newest(runs).records
        shown = None if no_images else images_of(listed, dataset, images)
        text = render_html(listed, shown, history_sheet(runs) if len(runs) > 1 else None)
    elif len(runs) > 1:
        text = render_history(runs, layout, table)
    else:
        text = render_table(runs[0].records, table, layout) if table else RENDERERS[layout](runs[0].records)
    if output is None:
        click.echo(text, nl=False)
    else:
        write_text(output, text)
