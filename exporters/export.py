"""Export: a checkpoint and recipes go in, artifacts come out.

One template for all: refuse existing output → load → build and quantize by recipe → gate against the checkpoint → join into one graph,
where the recipe wants that, and gate it against the split ones → write, manifest last.
Everything is made in a working folder beside the output, so what was there before is untouched until the new artifact is complete.
"""

import errno
import importlib.metadata
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from exporters.recipes import Recipe
from exporters.writing.artifact_writer import write_artifact
from exporters.writing.output_paths import output_paths
from runtimes.artifact import json_dataclass
from runtimes.artifact.folder import Artifact, open_artifact
from runtimes.artifact.manifest import SCHEMA, GraphSpec, Manifest
from runtimes.engine_registry import find_engine
from runtimes.engines.ort.graph_check import read_graph
from runtimes.errors import CheckpointError, ExportError, MissingDependencyError, OutputError, ToolkitError, UnavailableError
from runtimes.families.signature import SPLIT
from runtimes.host.facts import read_host
from runtimes.loading import load
from runtimes.storage.atomic_write import working_folder

if TYPE_CHECKING:
    from exporters.checkpoint.checkpoint import Checkpoint
    from exporters.gate.gate import OnGateFailure, Reference
    from exporters.gate.labelled_image import LabelledImage

UNWRITABLE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EEXIST),
    *(errno.EMFILE, errno.ENFILE),
}
"""What the system says of an output that cannot be written: the user's business, unlike any other OSError."""

WORKING_COPIES = 4
"""Room that an export needs, in FP32 copies of the weights: graphs, their quantized form, and the quantizer's own temporary file."""


def export(
    checkpoint: "Checkpoint",
    recipes: Sequence[Recipe],
    output: Path,
    images: Sequence["LabelledImage"],
    *,
    overwrite: bool = False,
    on_gate_failure: "OnGateFailure" = "fail",
    allow_bin: bool = False,
    on_step: Callable[[str], None] = lambda step: None,
) -> Iterator[Path]:
    """Make one artifact per recipe under `output` and yield its path when it is complete.

    A recipe that fails does not stop the others; its error is raised when all were tried. What concerns every recipe, as a full disk or a
    checkpoint that cannot be read, ends the export at once.

    Args:
        checkpoint: From `exporters.checkpoint.checkpoint.open_checkpoint`.
        recipes: What to make.
        output: Folder for `<checkpoint>-<recipe>/`.
        images: What the gate looks at.
        overwrite: Replace artifacts that exist.
        on_gate_failure: "fail", or "write" to write an artifact that fails the gate, with the gate's findings in its manifest.
        allow_bin: The checkpoint may be a `.bin`.
        on_step: Told what is being done, for progress.

    Raises:
        OutputExistsError, OutputError: Before anything is built, where that can be known.
        CheckpointError, GateError, ToolkitError: The one failure; artifacts that were yielded remain.
        ExportError: Several recipes failed.
    """
    from exporters.checkpoint.reference import find_reference

    for recipe in recipes:
        recipe.check_components(checkpoint.family.components)
    paths = output_paths(checkpoint.name, recipes, output, overwrite=overwrite)
    failures: list[ToolkitError] = []
    try:
        output.mkdir(parents=True, exist_ok=True)
        _check_room(checkpoint, output)
        threads = read_host().cores
        on_step("reference captions (transformers, FP32)")
        reference = find_reference(checkpoint, images, threads, allow_bin=allow_bin)
        for recipe in recipes:
            on_step(recipe.name)
            try:
                _export_one(checkpoint, recipe, paths[recipe.name], images, reference, threads, on_gate_failure, overwrite=overwrite)
            except (CheckpointError, OutputError) as error:
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
    reference: "Reference",
    threads: int,
    on_gate_failure: "OnGateFailure",
    *,
    overwrite: bool,
) -> None:
    """Build one artifact in a working folder, gate it, and write it to `path`."""
    with working_folder(path.parent, ".export-") as working:
        scaled = checkpoint.at_scale(recipe.image_scale)
        staged = _build(_exporter(recipe.runtime), scaled, recipe, working, path.name)
        captioner = load(staged, device="cpu", threads=threads)
        findings = checkpoint.family.evaluate(captioner, recipe, images, reference, on_gate_failure)
        del captioner
        if recipe.layout == "single":
            staged = _joined(open_artifact(staged), recipe, working)
            captioner = load(staged, device="cpu", threads=threads)
            findings = checkpoint.family.evaluate_joined(captioner, recipe, images, findings, on_gate_failure)
        built = open_artifact(staged)
        payload = {entry.role: _renamed(staged / name, entry.role) for name, entry in built.manifest.files.items()}
        write_artifact(path, replace(built.manifest, gate=findings), payload, overwrite=overwrite)


def _exporter(runtime: str) -> ModuleType:
    builder = find_engine(runtime).builder
    if builder is None:
        raise UnavailableError(f"this toolkit exports nothing for the engine '{runtime}'")
    try:
        return import_module(builder)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(error.name or "a package", f"exporting for the runtime '{runtime}'", "export") from error


def _build(exporter: ModuleType, checkpoint: "Checkpoint", recipe: Recipe, working: Path, name: str) -> Path:
    """Build and quantize; return a complete artifact in the working folder whose gate has not been asked yet."""
    payload, applied = exporter.build(checkpoint, recipe, working)
    tokenizer = working / "tokenizer.json"
    tokenizer.write_bytes(checkpoint.tokenizer_json)
    manifest = Manifest(
        schema=SCHEMA,
        name=name,
        task=checkpoint.family.task,
        family=checkpoint.family.family,
        runtime=recipe.runtime,
        contract=SPLIT,
        toolkit=importlib.metadata.version("blip-toolkit"),
        source=checkpoint.source,
        recipe={**json_dataclass.to_json(recipe), "sha256": recipe.sha256},
        applied=applied,
        target=recipe.target,
        model=checkpoint.model,
        image=checkpoint.image,
        tokenizer=checkpoint.tokenizer,
        defaults=checkpoint.defaults,
        graphs=_graphs(payload),
        files={},
        requires=exporter.REQUIRES,
        gate={},
    )
    return write_artifact(working / name, manifest, {**payload, "tokenizer": tokenizer}, overwrite=False).path


def _joined(split: Artifact, recipe: Recipe, working: Path) -> Path:
    """Return a complete artifact in the working folder that holds the two graphs of another as one."""
    from exporters.onnx.single_graph import join

    payload = join(split, working)
    manifest = replace(split.manifest, contract=recipe.contract, graphs=_graphs(payload))
    tokenizer = _renamed(split.path_of("tokenizer"), "tokenizer")
    return write_artifact(working / recipe.layout, manifest, {**payload, "tokenizer": tokenizer}, overwrite=False).path


def _graphs(payload: Mapping[str, Path]) -> dict[str, GraphSpec]:
    return {role: read_graph(file, file.read_bytes()).spec for role, file in payload.items() if file.suffix == ".onnx"}


def _renamed(path: Path, role: str) -> Path:
    """Give a staged file its plain name back, so that writing it adds the hash once."""
    return path.rename(path.with_name(role + path.suffix))


def _check_room(checkpoint: "Checkpoint", output: Path) -> None:
    weights = max(checkpoint.fp32_bytes, sum(file.stat().st_size for file in checkpoint.weight_files))
    free = shutil.disk_usage(output).free
    if free < WORKING_COPIES * weights:
        raise OutputError(
            output, f"an export of this checkpoint needs about {WORKING_COPIES * weights / 1e6:.0f} MB and {free / 1e6:.0f} MB are free"
        )
