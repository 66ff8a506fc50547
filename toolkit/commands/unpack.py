"""`toolkit unpack`: check a package and write its files to a folder, exactly those that its manifest declares."""

import json
from pathlib import Path

import click

from toolkit.commands.options import FILE, FOLDER, digest_option, json_option


@click.command(epilog="Example: toolkit unpack captioner.tar.gz --digest SHA256")
@click.argument("file", type=FILE)
@click.option(
    "-o",
    "--output",
    type=FOLDER,
    help="Write the files to this folder; it must not exist.  [default: FILE without .tar.gz, in the current folder]",
)
@digest_option
@json_option
def command(file: Path, output: Path | None, digest: str | None, as_json: bool) -> None:
    """Check a package and unpack it.

    FILE is a package of `toolkit package` (.tar.gz). The folder appears only after all checks passed.
    """
    from runtimes.storage.archive import SUFFIX, check_suffix, unpack

    check_suffix(file)
    target = output or Path(file.name.removesuffix(SUFFIX))
    manifest = unpack(file, target, digest)
    click.echo(json.dumps({"path": str(target), "digest": manifest.digest}) if as_json else str(target))
