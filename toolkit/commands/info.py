"""`toolkit info`: what an artifact, a package or a checkpoint is."""

import json
from pathlib import Path

import click


@click.command(
    help="Show what an artifact, a package or a checkpoint is.",
    epilog="PATH is an artifact's folder, a file that `toolkit package` wrote, or a checkpoint's folder. Only metadata is read.",
)
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="All of it, for programs.")
def command(path: Path, as_json: bool) -> None:
    """Echo the description."""
    from toolkit.info.describe import describe
    from toolkit.info.text import render

    found = describe(path)
    click.echo(json.dumps(found, indent=1, ensure_ascii=False) + "\n" if as_json else render(found), nl=False)
