"""`toolkit unpack`: a package goes in; a folder that holds exactly what its manifest declares comes out."""

from pathlib import Path

import click


@click.command(help="Unpack a package, checked before it is there.", epilog="FILE is what `toolkit package` wrote.")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(file_okay=False, path_type=Path), help="The folder; it must not exist.  [default: FILE's name, here]"
)
@click.option("--sha256", metavar="DIGEST", help="Of its manifest, as the sender told it; another package is not unpacked.")
def command(file: Path, output: Path | None, sha256: str | None) -> None:
    """Echo the folder."""
    from runtimes.storage.archive import form_of, unpack

    target = output or Path(file.name.removesuffix(form_of(file).suffix))
    unpack(file, target, sha256)
    click.echo(str(target))
