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
from runtimes.artifact.graph_signature import SPLIT
from runtimes.artifact.manifest import SCHEMA, GraphSpec, Manifest
from runtimes.engine_registry import find_engine
from runtimes.engines.ort.graph_check import read_graph
from runtimes.errors import MissingDependencyError, OutputError, UnavailableError
from runtimes.host.facts import read_host
from runtimes.loading import load
from runtimes.storage.atomic_write import working_folder

if TYPE_CHECKING:
    from exporters.checkpoint.blip import Checkpoint
    from exporters.gate.gate import GateMode, Picture

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
    pictures: Sequence["Picture"],
    *,
    overwrite: bool = False,
    gate: "GateMode" = "enforce",
    allow_bin: bool = False,
    on_step: Callable[[str], None] = lambda step: None,
) -> Iterator[Path]:
    """Make one artifact per recipe under `output` and yield its path when it is complete.

    Args:
        checkpoint: From `exporters.checkpoint.blip.open_checkpoint`.
        recipes: What to make.
        output: Folder for `<checkpoint>-<recipe>/`.
        pictures: What the gate looks at.
        overwrite: Replace artifacts that exist.
        gate: "enforce", or "report" to write whatever the gate finds.
        allow_bin: The checkpoint may be a `.bin`.
        on_step: Told what is being done, for progress.

    Raises:
        OutputExistsError, OutputError: Before anything is built, where that can be known.
        CheckpointError, GateError: Artifacts yielded before remain.
    """
    from exporters.checkpoint.reference import find_reference
    from exporters.gate.gate import check, check_joined

    paths = output_paths(checkpoint.name, recipes, output, overwrite=overwrite)
    exporters = {recipe.runtime: _exporter(recipe.runtime) for recipe in recipes}
    try:
        output.mkdir(parents=True, exist_ok=True)
        _check_room(checkpoint, output)
        threads = read_host().cores
        on_step("reference captions (transformers, FP32)")
        reference = find_reference(checkpoint, pictures, threads, output, allow_bin=allow_bin)
        for recipe in recipes:
            on_step(recipe.name)
            with working_folder(output, ".export-") as working:
                seen = checkpoint.at_scale(recipe.image_scale)
                staged = _build(exporters[recipe.runtime], seen, recipe, working, paths[recipe.name].name)
                captioner = load(staged, device="cpu", threads=threads)
                findings = check(captioner, recipe, pictures, reference, gate)
                del captioner
                if recipe.layout == "single":
                    staged = _joined(open_artifact(staged), recipe, working)
                    findings = check_joined(load(staged, device="cpu", threads=threads), recipe, pictures, findings)
                built = open_artifact(staged)
                payload = {entry.role: _renamed(staged / name, entry.role) for name, entry in built.manifest.files.items()}
                manifest = json_dataclass.from_json(Manifest, {**json_dataclass.to_json(built.manifest), "gate": findings})[0]
                assert manifest is not None
                write_artifact(paths[recipe.name], manifest, payload, overwrite=overwrite)
            yield paths[recipe.name]
    except OSError as error:
        if error.errno in UNWRITABLE:
            raise OutputError(output, error.strerror or str(error)) from error
        raise


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
        runtime=recipe.runtime,
        contract=SPLIT,
        toolkit=importlib.metadata.version("blip-toolkit"),
        source=checkpoint.source,
        recipe={**json_dataclass.to_json(recipe), "sha256": recipe.sha256},
        applied=applied,
        target=recipe.target,
        architecture=checkpoint.architecture,
        image=checkpoint.image,
        generation=checkpoint.generation,
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
    manifest = replace(split.manifest, contract=recipe.contract, graphs=_graphs(payload), digest="")
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
