"""Export a checkpoint to artifacts, one per recipe.

The steps are the same for all recipes:
1. Refuse to replace existing output, unless `overwrite` is true.
2. If the recipe smooths activations, fold their scales into the weights. Build the graphs or weights in the recipe's number formats.
3. Run the gate: compare the artifact with the checkpoint. If it fails, repeat 2 and 3 with other formats for single layers.
4. With the split layout, make the draft table. With the single layout, join the graphs into one, and compare it with the split graphs.
5. Write the artifact, its manifest last.

All files are made in a working folder beside the output. An artifact that is replaced stays unchanged until the new one is complete.
"""

import errno
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporters.building import build, builder_module, check_layout, join_graphs, without_hash
from exporters.drafts.make_drafts import make_drafts
from exporters.recipe import Recipe
from exporters.writing.artifact_writer import write_artifact
from exporters.writing.output_paths import output_paths
from runtimes.artifact import json_dataclass
from runtimes.artifact.folder import open_artifact
from runtimes.decoding.drafts.draft_table import ROLE
from runtimes.errors import (
    CheckpointError,
    DatasetError,
    ExportError,
    OutputError,
    ToolkitError,
)
from runtimes.host.facts import read_host
from runtimes.loading import load
from runtimes.storage.atomic_write import free_bytes, working_folder

if TYPE_CHECKING:
    from exporters.calibration.activations import Calibration
    from exporters.checkpoint.checkpoint import Checkpoint
    from exporters.drafts.sources import DraftSources
    from exporters.gate.gate import AnyReference, OnGateFailure
    from exporters.gate.labelled_image import LabelledImage

logger = logging.getLogger(__name__)

UNWRITABLE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EEXIST),
    *(errno.EMFILE, errno.ENFILE),
}
"""Error numbers of an output that cannot be written. The user can correct these; any other OSError is a bug of the toolkit."""

WORKING_COPIES = 4
"""Disk space for an export, in FP32 copies of the weights: the graphs, their quantized form, and the quantizer's temporary file."""


def export(
    checkpoint: "Checkpoint",
    recipes: Sequence[Recipe],
    output: Path,
    images: Sequence["LabelledImage"],
    *,
    overwrite: bool = False,
    on_gate_failure: "OnGateFailure" = "retry",
    calibration: "Calibration | None" = None,
    draft_sources: "DraftSources | None" = None,
    on_step: Callable[[str], None] = lambda step: None,
) -> Iterator[Path]:
    """Make one artifact per recipe and yield the path of each as soon as it is complete.

    If a recipe fails, the others are still exported, and the error is raised at the end. An error that concerns all recipes, such as a full
    disk or an unreadable checkpoint, ends the export at once. Artifacts that were yielded remain in both cases.

    Args:
        checkpoint: From `exporters.checkpoint.checkpoint.open_checkpoint`.
        recipes: One artifact is made for each.
        output: Folder in which the artifacts `<checkpoint>-<recipe>/` are made.
        images: The gate's images with their reference captions.
        overwrite: Replace existing artifacts.
        on_gate_failure: "retry" tries the recipe again with other formats for single layers, at most three times, then raises GateError;
            "fail" raises it at once; "write" writes the artifact with the failure recorded in its manifest.
        calibration: Images for SmoothQuant and GPTQ; None for those that ship with the toolkit. If several exports of a checkpoint
            share one object, its activations are recorded once.
        draft_sources: What the draft tables are made from; None makes no draft tables.
        on_step: Called with the name of each step when it begins, for progress display.

    Raises:
        RecipeError: A recipe names a component or a layer that the model does not have, or has a layout that its task does not have; or
            two recipes have the same name.
        OutputExistsError: An artifact exists and `overwrite` is false. Nothing was built.
        OutputError: An artifact cannot be written.
        CheckpointError: The weights cannot be read.
        DatasetError: A calibration image cannot be read.
        GateError: An artifact differs from the checkpoint by more than its recipe allows.
        ExportError: Several recipes failed.
    """
    from exporters.calibration.activations import Calibration
    from exporters.checkpoint.reference import find_reference

    calibration = calibration or Calibration()
    for recipe in recipes:
        recipe.check_components(checkpoint.family.components)
        recipe.check_layers(checkpoint.layers())
        check_layout(checkpoint, recipe)
    paths = output_paths(checkpoint.name, recipes, output, overwrite=overwrite)
    failures: list[ToolkitError] = []
    try:
        output.mkdir(parents=True, exist_ok=True)
        _check_room(checkpoint, output)
        checkpoint.load_weights()  # transformers replaces missing tensors by random values, so check the weights before it runs
        threads = read_host().cores
        on_step("reference captions (transformers, FP32)")
        reference = find_reference(checkpoint, images, threads)
        for recipe in recipes:
            on_step(recipe.name)
            try:
                fitted = _fitted(checkpoint, recipe)
                expected = reference if fitted.defaults == checkpoint.defaults else find_reference(fitted, images, threads)
                job = (fitted, recipe, paths[recipe.name], images, expected, calibration, threads)
                _export_one(*job, on_gate_failure, draft_sources, overwrite=overwrite)
            except (CheckpointError, DatasetError, OutputError) as error:
                failures.append(error)
                break
            except ToolkitError as error:
                failures.append(error)
            else:
                yield paths[recipe.name]
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        failures.append(OutputError(output, error.strerror or str(error)))
        failures[-1].__cause__ = error
    if failures:
        raise failures[0] if len(failures) == 1 else ExportError(failures)


def _export_one(
    checkpoint: "Checkpoint",
    recipe: Recipe,
    path: Path,
    images: Sequence["LabelledImage"],
    reference: "AnyReference",
    calibration: "Calibration",
    threads: int,
    on_gate_failure: "OnGateFailure",
    draft_sources: "DraftSources | None",
    *,
    overwrite: bool,
) -> None:
    """Build one artifact in a working folder, run the gate, and write it to `path`; see `_attempts` for what follows a failure."""
    from exporters.calibration.smoothing import smoothed
    from exporters.gate.gate import error_after_retries

    exporter = builder_module(recipe.runtime)
    with working_folder(path.parent, ".export-") as working:
        scaled = checkpoint.with_image_scale(recipe.image_scale)
        prepared = smoothed(scaled, recipe, calibration, threads)
        failed: list[dict[str, Any]] = []
        at_once: OnGateFailure = "fail" if on_gate_failure == "fail" else "write"
        for number, attempt in enumerate(_attempts(checkpoint, prepared, recipe, threads, on_gate_failure)):
            folder = working / str(number)
            folder.mkdir()
            if number:  # other formats need other scales
                prepared = smoothed(scaled, attempt, calibration, threads)
            staged = build(exporter, prepared, attempt, calibration, folder, path.name)
            model: Any = load(staged, task=checkpoint.family.task, device="cpu", threads=threads)
            findings = checkpoint.family.evaluate(model, recipe, images, reference, at_once)
            findings |= {"exceptions": _exceptions(scaled, attempt, recipe)}
            del model
            if findings["passed"] or on_gate_failure == "write":
                break
            failed.append(findings)
            shutil.rmtree(folder)
        else:
            raise error_after_retries(recipe, failed)
        drafts: dict[str, Path] = {}
        optional: dict[str, Any] = {}
        if draft_sources is not None and recipe.layout == "split" and checkpoint.family.drafts:
            content, spec = make_drafts(load(staged, device="cpu", threads=threads), draft_sources, [image.path for image in images])
            drafts[ROLE], optional[ROLE] = working / "drafts.npy", json_dataclass.dump(spec)
            drafts[ROLE].write_bytes(content)
        if recipe.layout == "single":
            staged = join_graphs(open_artifact(staged), recipe, working)
            captioner = load(staged, device="cpu", threads=threads)
            findings = checkpoint.family.evaluate_joined(
                captioner, recipe, images, findings, "write" if on_gate_failure == "write" else "fail"
            )
        built = open_artifact(staged)
        payload = {entry.role: without_hash(staged / name, entry.role) for name, entry in built.manifest.files.items()}
        manifest = replace(built.manifest, gate=findings, optional={**built.manifest.optional, **optional})
        write_artifact(path, manifest, {**payload, **drafts}, overwrite=overwrite)


def _attempts(
    checkpoint: "Checkpoint", prepared: "Checkpoint", recipe: Recipe, threads: int, on_gate_failure: "OnGateFailure"
) -> Iterator[Recipe]:
    """Yield a recipe and, if the gate may be tried again, the recipe with growing numbers of exceptions."""
    yield recipe
    retries = on_gate_failure == "retry" and recipe.precision in ("int8", "int4") and checkpoint.family.per_token
    if not retries or recipe.drift_limit_nat is None:
        return
    from exporters.mixed_precision.exceptions import recipes_with_exceptions

    logger.warning("%s: the gate failed; looking for layers that need another format", recipe.name)
    yield from recipes_with_exceptions(checkpoint, prepared, recipe, threads)


def _exceptions(checkpoint: "Checkpoint", attempt: Recipe, recipe: Recipe) -> dict[str, str]:
    """Return layer → format of the layers whose format a retry changed."""
    changed = {}
    for component, layers in checkpoint.layers().items():
        for layer in layers:
            before, after = (str(each.component(component).layer(layer)) for each in (recipe, attempt))
            if before != after:
                changed[layer] = after
    return changed


def _fitted(checkpoint: "Checkpoint", recipe: Recipe) -> "Checkpoint":
    """Return the checkpoint with the decoding settings that the recipe's layout can apply, and log those that it cannot."""
    defaults = checkpoint.defaults.for_one_graph() if recipe.layout == "single" else checkpoint.defaults
    if defaults != checkpoint.defaults:
        logger.warning("%s: a single graph captions greedily and does not apply the checkpoint's beams, bans and penalties", recipe.name)
    return replace(checkpoint, defaults=defaults)


def _check_room(checkpoint: "Checkpoint", output: Path) -> None:
    """Raise OutputError if the disk has less free space than an export needs."""
    weights = max(checkpoint.fp32_bytes, sum(file.stat().st_size for file in checkpoint.weight_files))
    free = free_bytes(output)
    if free is not None and free < WORKING_COPIES * weights:
        raise OutputError(
            output, f"an export of this checkpoint needs about {WORKING_COPIES * weights / 1e6:.0f} MB and {free / 1e6:.0f} MB are free"
        )
