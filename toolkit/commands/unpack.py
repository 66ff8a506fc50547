"""`toolkit unpack`: a package goes in; a folder that holds exactly what its manifest declares comes out."""

from pathlib import Path

import click


@click.command(help="Unpack a package, checked before it is there.", epilog="FILE is what `toolkit package` wrote.")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(file_okay=False, path_type=Path), help="The folder; it must not exist.  [default: FILE's name, here]"
)
@click.option("--digest", metavar="SHA256", help="Expected sha256 of its manifest.json, as the sender published it.")
def command(file: Path, output: Path | None, digest: str | None) -> None:
    """Echo the folder."""
    from runtimes.storage.archive import SUFFIX, check_suffix, unpack

    check_suffix(file)
    target = output or Path(file.name.removesuffix(SUFFIX))
    unpack(file, target, digest)
    click.echo(str(target))
