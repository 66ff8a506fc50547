"""`toolkit export`: a checkpoint goes in, artifacts come out; each path is printed when it is complete."""

import logging
import os
from pathlib import Path
from typing import cast

import click

from exporters.recipes import RECIPES, find_recipe
from runtimes.errors import MissingDependencyError
from toolkit.commands.options import overwrite_option
from toolkit.progress import progress


@click.command(
    help="Turn a BLIP checkpoint into artifacts.",
    epilog="CHECKPOINT is a directory in Hugging Face's layout or a hub id.",
)
@click.argument("checkpoint", required=False)
@click.option(
    "--recipe", "recipes", multiple=True, metavar="NAME|FILE", help="What to make (repeatable); a name or a .json file.  [default: all]"
)
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), default=Path("build/artifacts"), show_default=True)
@click.option("--revision", help="Commit, tag or branch of a hub id.")
@overwrite_option
@click.option(
    "--gate",
    type=click.Choice(["enforce", "report"]),
    default="enforce",
    show_default=True,
    help="enforce: an artifact that differs from its checkpoint by more than its recipe allows is not written; report: it is, and says so.",
)
@click.option(
    "--allow-bin", is_flag=True, help="Read a pytorch_model.bin (torch's weights-only loader) where there is no safetensors file."
)
@click.option("--list", "list_recipes", is_flag=True, help="List the recipes and exit.")
def command(
    checkpoint: str | None,
    recipes: tuple[str, ...],
    output: Path,
    revision: str | None,
    overwrite: bool,
    gate: str,
    allow_bin: bool,
    list_recipes: bool,
) -> None:
    """Echo the path of each artifact when it is complete."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # its exporter warns of every operator that is not of the standard
    if list_recipes:
        for recipe in RECIPES:
            click.echo(f"{recipe.name:<18} {recipe.why}")
        return
    if checkpoint is None:
        raise click.UsageError("Missing argument 'CHECKPOINT'.")
    from exporters.export import export
    from exporters.writing.output_paths import name_of, output_paths

    chosen = [find_recipe(name) for name in recipes] or list(RECIPES)
    try:
        from exporters.checkpoint.blip import open_checkpoint
    except ModuleNotFoundError as error:
        raise MissingDependencyError(error.name or "a package", "exporting", "export") from error
    from exporters.gate.gate import GateMode, findings_line
    from runtimes.artifact.folder import open_artifact
    from toolkit.datasets import load_dataset

    output_paths(name_of(checkpoint), chosen, output, overwrite=overwrite)  # before anything is fetched or read
    opened = open_checkpoint(checkpoint, revision, allow_bin=allow_bin)
    with progress("export", len(chosen)) as bar:
        finished = export(
            opened,
            chosen,
            output,
            load_dataset("sample").pictures,
            overwrite=overwrite,
            gate=cast("GateMode", gate),
            allow_bin=allow_bin,
            on_step=lambda step: bar.update(0, step),
        )
        for path in finished:
            bar.update(1)
            click.echo(str(path))
            if logging.getLogger().isEnabledFor(logging.WARNING):
                click.echo(f"  {findings_line(open_artifact(path).manifest.gate)}", err=True)
