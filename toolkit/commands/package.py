"""`toolkit package`: an artifact goes in, one file for the road comes out; its digest is printed for the sender to pass on."""

from pathlib import Path

import click

from toolkit.commands.options import default_artifact, guard_file, overwrite_option
from toolkit.progress import progress


@click.command(
    help="Pack an artifact into one file that proves itself.",
    epilog="ARTIFACT is an artifact's folder. [default: the best one of build/artifacts for this machine] "
    "Send the printed digest by another way than the file: `verify --digest` compares it.",
)
@click.argument("artifact", type=click.Path(path_type=Path), required=False)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file, .tar.gz.  [default: ARTIFACT.tar.gz beside the artifact]",
)
@click.option("--records", type=click.Path(dir_okay=False, path_type=Path), help="Records of `toolkit bench` for the model card's table.")
@click.option(
    "--with-wheels", is_flag=True, help="Add this toolkit and all that captioning needs, so that a device installs from the file."
)
@click.option(
    "--platform",
    "platforms",
    multiple=True,
    metavar="P",
    help="The device, as pip names it: manylinux_2_28_aarch64 (repeatable).  [default: this machine]",
)
@click.option("--python", metavar="X.Y", help="The device's Python.  [default: this one's]")
@overwrite_option
def command(
    artifact: Path | None,
    output: Path | None,
    records: Path | None,
    with_wheels: bool,
    platforms: tuple[str, ...],
    python: str | None,
    overwrite: bool,
) -> None:
    """Echo the file and the digest of its manifest."""
    from runtimes.artifact.folder import open_artifact
    from toolkit.packaging.card import measured_table
    from toolkit.packaging.package import default_output, package
    from toolkit.packaging.wheels import collect

    if (platforms or python) and not with_wheels:
        raise click.UsageError("--platform and --python are of the wheels: give --with-wheels too.")
    artifact = artifact or default_artifact()
    output = output or default_output(artifact)
    guard_file(output, overwrite=overwrite)
    table = measured_table(records, open_artifact(artifact).manifest) if records else None
    wheels = collect(platforms, python) if with_wheels else None
    with progress("package", open_artifact(artifact).total_bytes) as bar:
        digest = package(artifact, output, measured=table, wheels=wheels, overwrite=overwrite, on_bytes=bar.update)
    click.echo(f"{output}\ndigest {digest}")
