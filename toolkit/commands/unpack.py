"""`toolkit unpack`: check a package and write its files to a folder, exactly those that its manifest declares."""

from pathlib import Path

import click

from toolkit.commands.options import FILE, FOLDER, digest_option


@click.command(epilog="Example: toolkit unpack captioner.tar.gz --digest SHA256")
@click.argument("file", type=FILE)
@click.option(
    "-o",
    "--output",
    type=FOLDER,
    help="Write the files to this folder; it must not exist.  [default: FILE without .tar.gz, in the current folder]",
)
@digest_option
def command(file: Path, output: Path | None, digest: str | None) -> None:
    """Check a package and unpack it.

    FILE is a package of `toolkit package` (.tar.gz). The folder appears only after all checks passed.
    """
    from runtimes.storage.archive import SUFFIX, check_suffix, unpack

    check_suffix(file)
    target = output or Path(file.name.removesuffix(SUFFIX))
    unpack(file, target, digest)
    click.echo(str(target))
