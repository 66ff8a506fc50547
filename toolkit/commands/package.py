"""`toolkit package`: pack an artifact into one archive, and print the archive's path and the digest of its manifest."""

import json
from pathlib import Path

import click

from toolkit.commands.artifact_argument import default_artifact
from toolkit.commands.options import ANY_PATH, FILE, guard_file, json_option, overwrite_option
from toolkit.progress import progress


@click.command(epilog="Example: toolkit package build/artifacts/blip-mini-coco-onnx-int8")
@click.argument("artifact", type=ANY_PATH, required=False)
@click.option("-o", "--output", type=FILE, help="Write the package to this file (.tar.gz).  [default: ARTIFACT.tar.gz beside the artifact]")
@click.option("--records", type=FILE, help="Records of `toolkit bench`, shown as a table in the model card.")
@click.option("--with-wheels", is_flag=True, help="Add wheels of this toolkit and its dependencies, to install without a network.")
@click.option(
    "--platform",
    "platforms",
    multiple=True,
    metavar="PLATFORM",
    help="pip platform tag of the target device for the wheels, for example manylinux_2_28_aarch64 (repeatable).  [default: this machine]",
)
@click.option("--python", metavar="X.Y", help="Python version of the target device for the wheels.  [default: this Python]")
@overwrite_option
@json_option
def command(
    artifact: Path | None,
    output: Path | None,
    records: Path | None,
    with_wheels: bool,
    platforms: tuple[str, ...],
    python: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Pack an artifact into one file that another machine can verify.

    ARTIFACT is an artifact's folder. [default: the best artifact of build/artifacts for this machine] The command prints a digest: send it
    to the receiver separately from the file, for `toolkit verify --digest`.
    """
    from runtimes.artifact.folder import open_artifact
    from toolkit.packaging.card import measured_table
    from toolkit.packaging.package import default_output, package
    from toolkit.packaging.wheels import collect

    if (platforms or python) and not with_wheels:
        raise click.UsageError("--platform and --python select wheels: give --with-wheels too.")
    artifact = artifact or default_artifact()
    output = output or default_output(artifact)
    guard_file(output, overwrite=overwrite)
    table = measured_table(records, open_artifact(artifact).manifest) if records else None
    wheels = collect(platforms, python) if with_wheels else None
    with progress("package", open_artifact(artifact).total_bytes) as bar:
        digest = package(artifact, output, measured=table, wheels=wheels, overwrite=overwrite, on_bytes=bar.update)
    if as_json:
        click.echo(json.dumps({"path": str(output), "digest": digest, "bytes": output.stat().st_size}))
    else:
        click.echo(f"{output}\ndigest {digest}")
