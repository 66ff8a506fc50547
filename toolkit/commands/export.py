"""`toolkit export`: export a checkpoint to artifacts, and print the path of each artifact when it is complete."""

import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from exporters.recipes import RECIPES, deployable_recipes, find_recipes, for_task
from runtimes.artifact import json_dataclass
from runtimes.errors import ExportError, MissingDependencyError, RequestError, ToolkitError
from runtimes.host.facts import read_host
from toolkit.commands.artifact_argument import ARTIFACTS
from toolkit.commands.options import FILE, FOLDER, adapter_option, json_option, overwrite_option, revision_option
from toolkit.progress import progress

if TYPE_CHECKING:
    from exporters.drafts.sources import DraftSources
    from runtimes.artifact.folder import Artifact


@click.command(epilog="Example: toolkit export models/blip-mini-coco --recipe onnx-int8")
@click.argument("checkpoint", required=False)
@click.option(
    "--recipe",
    "recipes",
    multiple=True,
    metavar="NAME|FILE",
    help="Recipe to export (repeatable): a name, a .json file, or 'all'.  [default: the recipes that --list marks 'default']",
)
@click.option(
    "-o",
    "--output",
    type=FOLDER,
    default=ARTIFACTS,
    show_default=True,
    help="Folder to write the artifacts to, each to OUTPUT/<checkpoint>-<recipe>.",
)
@revision_option
@overwrite_option
@click.option(
    "--on-gate-failure",
    type=click.Choice(["retry", "fail", "write"]),
    default="retry",
    show_default=True,
    help="If an artifact differs from its checkpoint by more than its recipe allows: try again with other formats for the layers that need "
    "them, fail, or write it with the failure recorded in its manifest.",
)
@click.option(
    "--calibration",
    type=FOLDER,
    help="Folder of images for recipes that smooth activations or have 4-bit weights; at most 64 of them are used.  [default: the images "
    "of the toolkit]",
)
@click.option("--safetensors-only", is_flag=True, help="Refuse pytorch_model.bin. By default, torch reads it with weights_only=True.")
@click.option(
    "--like",
    metavar="CHECKPOINT",
    help="If CHECKPOINT is one file of weights: folder or hub id with its config.json, tokenizer and image settings.  [default: the "
    "folder of the file, or else the published captioner of its size]",
)
@adapter_option
@click.option(
    "--draft-images",
    type=FOLDER,
    metavar="DIR",
    help="Make the draft tables from the checkpoint's captions of these images.  [default: 38 calibration images]",
)
@click.option("--draft-text", type=FILE, metavar="FILE", help="Make the draft tables from captions in a text file, one per line.")
@click.option("--no-draft", is_flag=True, help="Make no draft tables.")
@click.option("--list", "list_recipes", is_flag=True, help="List all recipes and exit; 'default' marks those exported without --recipe.")
@json_option
def command(
    checkpoint: str | None,
    recipes: tuple[str, ...],
    output: Path,
    revision: str | None,
    overwrite: bool,
    on_gate_failure: str,
    calibration: Path | None,
    safetensors_only: bool,
    like: str | None,
    adapter: Path | None,
    draft_images: Path | None,
    draft_text: Path | None,
    no_draft: bool,
    list_recipes: bool,
    as_json: bool,
) -> None:
    """Export a BLIP checkpoint to artifacts.

    CHECKPOINT is a folder in Hugging Face's layout, a hub id, or one file of weights. The path of each artifact is printed when it is
    complete, or with --json one object at the end. If a recipe fails, the others are still exported, and the exit code is 1. A draft table
    makes greedy captions faster.
    """
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # torch's exporter warns about every non-standard operator
    if list_recipes:
        deployable = deployable_recipes(cuda=read_host().cuda)
        if as_json:
            click.echo(json.dumps([{"default": recipe in deployable, **json_dataclass.dump(recipe)} for recipe in RECIPES]))
        else:
            for recipe in RECIPES:
                click.echo(f"{recipe.name:<18} {'default' if recipe in deployable else '-':<8} {recipe.why}")
        return
    if checkpoint is None:
        raise click.UsageError("Missing argument 'CHECKPOINT'.")
    from exporters.export import export
    from exporters.writing.output_paths import merged_name, name_of, output_paths

    chosen = find_recipes(recipes, cuda=read_host().cuda)
    drafts = _draft_sources(draft_images, draft_text, no_draft=no_draft)
    try:
        from exporters.checkpoint.checkpoint import open_checkpoint
    except ModuleNotFoundError as error:
        raise MissingDependencyError(error.name or "a package", "exporting", "export") from error
    from exporters.calibration.activations import SHIPPED, Calibration
    from exporters.gate.findings import findings_line
    from exporters.gate.gate import OnGateFailure
    from runtimes.artifact.folder import open_artifact
    from toolkit.datasets import load_dataset

    images = SHIPPED if calibration is None else [image.path for image in load_dataset(None, calibration).images]
    output_paths(
        merged_name(name_of(checkpoint), adapter), chosen, output, overwrite=overwrite
    )  # fails before the checkpoint is downloaded or read
    source = open_checkpoint(checkpoint, revision, safetensors_only=safetensors_only, like=like, adapter=adapter)
    chosen = for_task(chosen, recipes, source.family.contracts, source.family.by_name_only)
    with progress("export", len(chosen)) as bar:
        finished = export(
            source,
            chosen,
            output,
            load_dataset("sample", task=source.family.task).images,
            overwrite=overwrite,
            on_gate_failure=cast("OnGateFailure", on_gate_failure),
            calibration=Calibration(images),
            draft_sources=drafts,
            on_step=lambda step: bar.update(0, step),
        )
        artifacts: list[Artifact] = []
        failures: tuple[ToolkitError, ...] = ()
        try:
            for path in finished:
                bar.update(1)
                artifacts.append(open_artifact(path))
                if not as_json:
                    click.echo(str(path))
                if logging.getLogger().isEnabledFor(logging.WARNING):
                    click.echo(f"  {findings_line(artifacts[-1].manifest.task, artifacts[-1].manifest.gate)}", err=True)
                    for layer, layer_format in artifacts[-1].manifest.gate["exceptions"].items():
                        click.echo(f"    {layer}: {layer_format}", err=True)
        except ToolkitError as error:
            failures = tuple(error.failures) if isinstance(error, ExportError) else (error,)
    if as_json:
        errors = [{"error": str(failure), "code": failure.code} for failure in failures]
        click.echo(json.dumps({"artifacts": [_summary(artifact) for artifact in artifacts], "failures": errors}))
    for failure in failures:
        click.echo(f"Error: {failure}", err=True)
    click.get_current_context().exit(1 if failures else 0)


def _summary(artifact: "Artifact") -> dict[str, Any]:
    """Return what an export made, as JSON values."""
    manifest = artifact.manifest
    gate = {key: value for key, value in manifest.gate.items() if key != "captions"}
    return {
        "path": str(artifact.path),
        "recipe": manifest.recipe["name"],
        "digest": manifest.digest,
        "bytes": artifact.total_bytes,
        "gate": gate,
    }


def _draft_sources(images: Path | None, text: Path | None, *, no_draft: bool) -> "DraftSources | None":
    """Return what the draft tables are made from; None for no tables.

    Raises:
        RequestError: Options exclude each other, or a source cannot be read or is empty.
    """
    from exporters.drafts.sources import DraftSources, calibration_images, read_texts
    from toolkit.image_paths import in_folder

    if no_draft and (images or text):
        raise RequestError("--no-draft excludes --draft-images and --draft-text")
    if no_draft:
        return None
    if images is not None and not (images.is_dir() and in_folder(images)):
        raise RequestError(f"{images}: is not a folder with images")
    paths = tuple(in_folder(images)) if images else () if text else calibration_images()
    return DraftSources(images=paths, texts=read_texts(text) if text else ())
