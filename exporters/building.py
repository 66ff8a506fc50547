"""Build one artifact in a working folder: graphs or weights, the tokenizer, and a manifest without gate findings."""

import importlib.metadata
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from exporters.recipe import Recipe
from exporters.writing.artifact_writer import write_artifact
from runtimes.artifact import json_dataclass
from runtimes.artifact.folder import Artifact
from runtimes.artifact.manifest import SCHEMA, GraphSpec, Manifest
from runtimes.engine_registry import find_engine
from runtimes.engines.ort.graph_check import read_graph
from runtimes.errors import MissingDependencyError, RecipeError, UnavailableError
from runtimes.families.signature import SINGLE

if TYPE_CHECKING:
    from exporters.calibration.activations import Calibration
    from exporters.checkpoint.checkpoint import Checkpoint


def builder_module(runtime: str) -> ModuleType:
    """Import the builder module of an engine."""
    builder = find_engine(runtime).builder
    if builder is None:
        raise UnavailableError(f"this toolkit has no exporter for the engine '{runtime}'")
    try:
        return import_module(builder)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(error.name or "a package", f"exporting for the runtime '{runtime}'", "export") from error


def check_layout(checkpoint: "Checkpoint", recipe: Recipe) -> None:
    """Check that the checkpoint's task has graphs of the recipe's layout.

    Raises:
        RecipeError: It has none.
    """
    contracts = checkpoint.family.contracts
    if recipe.layout not in contracts:
        raise RecipeError(
            f"{recipe.name}: layout '{recipe.layout}' is not for the task '{checkpoint.family.task}'; choose a recipe of layout "
            f"{' or '.join(contracts)}"
        )


def build(exporter: ModuleType, checkpoint: "Checkpoint", recipe: Recipe, calibration: "Calibration", working: Path, name: str) -> Path:
    """Build and quantize; return a complete artifact in the working folder, without gate findings.

    Args:
        exporter: The exporter of the recipe's runtime.
        checkpoint: The checkpoint.
        recipe: The recipe.
        calibration: Images for the recipes that need them.
        working: Existing folder for the artifact.
        name: Name of the artifact.
    """
    payload, applied = exporter.build(checkpoint, recipe, working, calibration.images)
    tokenizer = working / "tokenizer.json"
    tokenizer.write_bytes(checkpoint.tokenizer_json)
    manifest = Manifest(
        schema=SCHEMA,
        name=name,
        task=checkpoint.family.task,
        family=checkpoint.family.family,
        runtime=recipe.runtime,
        contract=checkpoint.family.contracts["split"],
        toolkit=importlib.metadata.version("blip-toolkit"),
        source=checkpoint.source,
        recipe={**json_dataclass.dump(recipe), "sha256": recipe.sha256},
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
        optional=_smoothing(checkpoint),
    )
    return write_artifact(working / name, manifest, {**payload, "tokenizer": tokenizer}, overwrite=False).path


def _smoothing(checkpoint: "Checkpoint") -> dict[str, Any]:
    """Return the entry `smoothing` of the manifest's section `optional`, if there is one."""
    if checkpoint.smoothing is None:
        return {}
    return {"smoothing": {"images": checkpoint.smoothing.images, "alphas": dict(checkpoint.smoothing.alphas)}}


def join_graphs(split: Artifact, recipe: Recipe, working: Path) -> Path:
    """Join the graphs of an artifact into one; return a complete artifact in the working folder."""
    from exporters.onnx.single_graph import join

    payload = join(split, working)
    manifest = replace(split.manifest, contract=SINGLE, graphs=_graphs(payload))
    tokenizer = without_hash(split.path_of("tokenizer"), "tokenizer")
    return write_artifact(working / recipe.layout, manifest, {**payload, "tokenizer": tokenizer}, overwrite=False).path


def _graphs(payload: Mapping[str, Path]) -> dict[str, GraphSpec]:
    return {role: read_graph(file, file.read_bytes()).spec for role, file in payload.items() if file.suffix == ".onnx"}


def without_hash(path: Path, role: str) -> Path:
    """Remove the hash from a staged file's name; `write_artifact` adds it again."""
    return path.rename(path.with_name(role + path.suffix))
