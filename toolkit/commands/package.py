"""`toolkit package`: an artifact goes in, one file for the road comes out; its digest is printed for the sender to pass on."""

from pathlib import Path

import click

from toolkit.commands.options import overwrite_option


@click.command(
    help="Pack an artifact into one file that proves itself.",
    epilog="ARTIFACT is an artifact's folder. Pass the printed digest on by another way than the file: verify --sha256 compares it.",
)
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file; .tar.gz or .zip.  [default: ARTIFACT.tar.gz beside the artifact]",
)
@click.option("--records", type=click.Path(dir_okay=False, path_type=Path), help="Records of `toolkit bench` for the model card's table.")
@overwrite_option
def command(artifact: Path, output: Path | None, records: Path | None, overwrite: bool) -> None:
    """Echo the file and the digest of its manifest."""
    from runtimes.artifact import open_artifact
    from toolkit.packaging.card import measured_table
    from toolkit.packaging.package import default_output, package

    output = output or default_output(artifact)
    table = measured_table(records, open_artifact(artifact).manifest) if records else None
    digest = package(artifact, output, measured=table, overwrite=overwrite)
    click.echo(f"{digest}  {output}")
