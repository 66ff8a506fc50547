"""`toolkit report`: render benchmark records as a table or an HTML page."""

from pathlib import Path

import click

from runtimes.errors import RequestError
from toolkit.commands.options import FILE, FOLDER, guard_file, output_file, overwrite_option


@click.command(epilog="Example: toolkit report records.jsonl --format html --output report.html")
@click.argument("records", nargs=-1, required=True, metavar="RECORDS...", type=FILE)
@click.option(
    "--format", "layout", type=click.Choice(["md", "csv", "json", "html"]), default="md", show_default=True, help="Output format."
)
@click.option(
    "--table", type=click.Choice(["growth", "components"]), help="Print only this table: growth over a sweep, or bytes per component."
)
@click.option("--dataset", help="Images to show on the HTML page, as in `toolkit bench`.  [default: the sample, if it was measured]")
@click.option("--images", type=FOLDER, help="Folder of the images to show on the HTML page.")
@click.option("--no-images", is_flag=True, help="Show captions without images on the HTML page.")
@output_file("Write the report to this file instead of stdout; an HTML page is one self-contained file.")
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
    """Render benchmark records as a table or an HTML page.

    RECORDS is a .jsonl file of `toolkit bench`. Several files are shown as changes over time.
    """
    from toolkit.compare.history import history_sheet, newest, render_history
    from toolkit.compare.pairing import read_run
    from toolkit.report.file import require_report_extra, write_text
    from toolkit.tables.render import RENDERERS, render_table

    if layout == "html" and table:
        raise RequestError("an HTML page has all tables: remove --table, or use --format md, csv or json")
    if (dataset or images or no_images) and layout != "html":
        raise RequestError("--dataset, --images and --no-images need --format html")
    guard_file(output, overwrite=overwrite)
    runs = [read_run(path) for path in records]
    if layout == "html":
        require_report_extra()
        from toolkit.report.images import images_of
        from toolkit.report.page import render_html

        latest = newest(runs).records
        shown = None if no_images else images_of(latest, dataset, images)
        text = render_html(latest, shown, history_sheet(runs) if len(runs) > 1 else None)
    elif len(runs) > 1:
        text = render_history(runs, layout, table)
    else:
        text = render_table(runs[0].records, table, layout) if table else RENDERERS[layout](runs[0].records)
    if output is None:
        click.echo(text, nl=False)
    else:
        write_text(output, text)
