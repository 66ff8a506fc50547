"""`toolkit export`: a checkpoint goes in, artifacts come out; each path is printed when it is complete."""

import logging
import os
from pathlib import Path
from typing import cast

import click

from exporters.recipes import RECIPES, deployable_recipes, find_recipes
from runtimes.errors import ExportError, MissingDependencyError
from runtimes.host.facts import read_host
from toolkit.commands.options import ARTIFACTS, overwrite_option
from toolkit.progress import progress


@click.command(
    help="Turn a BLIP checkpoint into artifacts.",
    epilog="CHECKPOINT is a directory in Hugging Face's layout or a hub id. A recipe that fails does not stop the others; the exit code is "
    "then 1.",
)
@click.argument("checkpoint", required=False)
@click.option(
    "--recipe",
    "recipes",
    multiple=True,
    metavar="NAME|FILE",
    help="Recipe to make (repeatable): a name, a .json file, or 'all'.  [default: the deployable set, which --list marks]",
)
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), default=ARTIFACTS, show_default=True)
@click.option("--revision", help="Commit, tag or branch of a hub id.")
@overwrite_option
@click.option(
    "--on-gate-failure",
    type=click.Choice(["fail", "write"]),
    default="fail",
    show_default=True,
    help="When an artifact differs from its checkpoint by more than its recipe allows: refuse it, or write it with that finding.",
)
@click.option("--safetensors-only", is_flag=True, help="Refuse a pytorch_model.bin, which torch's weights-only loader reads otherwise.")
@click.option("--list", "list_recipes", is_flag=True, help="List all recipes and exit; 'default' marks the deployable set of this machine.")
def command(
    checkpoint: str | None,
    recipes: tuple[str, ...],
    output: Path,
    revision: str | None,
    overwrite: bool,
    on_gate_failure: str,
    safetensors_only: bool,
    list_recipes: bool,
) -> None:
    """Echo the path of each artifact when it is complete."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # its exporter warns of every operator that is not of the standard
    if list_recipes:
        deployable = deployable_recipes(cuda=read_host().cuda)
        for recipe in RECIPES:
            click.echo(f"{recipe.name:<18} {'default' if recipe in deployable else '-':<8} {recipe.why}")
        return
    if checkpoint is None:
        raise click.UsageError("Missing argument 'CHECKPOINT'.")
    from exporters.export import export
    from exporters.writing.output_paths import name_of, output_paths

    chosen = find_recipes(recipes, cuda=read_host().cuda)
    try:
        from exporters.checkpoint.checkpoint import open_checkpoint
    except ModuleNotFoundError as error:
        raise MissingDependencyError(error.name or "a package", "exporting", "export") from error
    from exporters.gate.gate import OnGateFailure, findings_line
    from runtimes.artifact.folder import open_artifact
    from toolkit.datasets import load_dataset

    output_paths(name_of(checkpoint), chosen, output, overwrite=overwrite)  # before anything is fetched or read
    opened = open_checkpoint(checkpoint, revision, safetensors_only=safetensors_only)
    with progress("export", len(chosen)) as bar:
        finished = export(
            opened,
            chosen,
            output,
            load_dataset("sample").images,
            overwrite=overwrite,
            on_gate_failure=cast("OnGateFailure", on_gate_failure),
            on_step=lambda step: bar.update(0, step),
        )
        try:
            for path in finished:
                bar.update(1)
                click.echo(str(path))
                if logging.getLogger().isEnabledFor(logging.WARNING):
                    click.echo(f"  {findings_line(open_artifact(path).manifest.gate)}", err=True)
        except ExportError as error:
            for failure in error.failures:
                click.echo(f"Error: {failure}", err=True)
            click.get_current_context().exit(1)
