"""`python -m toolkit.bench.peers NAME...`: prepare peers of a checkpoint as folders for `toolkit bench`."""

from pathlib import Path

import click

from runtimes.artifact.folder import open_artifact
from runtimes.errors import MissingDependencyError, ToolkitError
from toolkit.bench.peers.catalogue import PEERS, find_peer
from toolkit.bench.peers.folder import Sources, prepare

CALIBRATION_IMAGES = 32
"""Number of images that are used: the first by name."""


@click.command(help="Prepare other tools' versions of a checkpoint; `toolkit bench` measures them beside artifacts.")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--checkpoint", required=True, help="The checkpoint: a directory or a hub id.")
@click.option("--graphs", required=True, type=click.Path(path_type=Path), help="Its onnx-fp32 artifact.")
@click.option(
    "--calibration", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of images for NNCF."
)
@click.option("-o", "--output", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder for the peers' folders.")
@click.option("--overwrite", is_flag=True, help="Replace output that exists.")
def main(names: tuple[str, ...], checkpoint: str, graphs: Path, calibration: Path, output: Path, overwrite: bool) -> None:
    """Print each complete folder. Skip a peer whose package is not installed, with a line on stderr."""
    from exporters.checkpoint.checkpoint import open_checkpoint
    from toolkit.image_paths import in_folder

    try:
        peers = [find_peer(name) for name in names]
        images = in_folder(calibration)[:CALIBRATION_IMAGES]
        sources = Sources(checkpoint=open_checkpoint(checkpoint), graphs=open_artifact(graphs), calibration=images)
        for peer in peers:
            try:
                click.echo(prepare(peer, sources, output, overwrite=overwrite))
            except MissingDependencyError as error:
                click.echo(f"{peer.name} is skipped: {error}", err=True)
    except ToolkitError as error:
        raise click.ClickException(str(error)) from error


main.epilog = f"NAME is one of {', '.join(peer.name for peer in PEERS)}."

if __name__ == "__main__":
    main(prog_name="python -m toolkit.bench.peers")
