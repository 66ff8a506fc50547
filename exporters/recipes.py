"""The recipes that ship with the toolkit, and those that a user names: entries of `RECIPES`, or JSON files with the fields of `Recipe`."""

import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from exporters.recipe import DEFAULT, Component, Recipe
from runtimes.artifact import json_dataclass
from runtimes.errors import RecipeError, UnknownNameError

_INT8 = Component(weights="qint8", per_channel=True, smooth="auto")
_INT7 = Component(weights="qint8", per_channel=True, reduce_range=True, smooth="auto")
_BLOCKS8 = Component(weights="qint8", block_size=64)
_BLOCKS4 = Component(weights="qint4", block_size=32)
"""The largest blocks with which an image has the same bits alone and in a batch, on x86 with AVX-512 (decision 44)."""
_FP16 = Component(weights="fp16")

RECIPES = (
    Recipe(name="pytorch-fp32", runtime="torch", why="FP32 in the toolkit's PyTorch module: the fallback where torch has no INT8 engine."),
    Recipe(
        name="pytorch-int8",
        runtime="torch",
        why="Dynamic INT8 on every Linear for machines that have torch anyway.",
        components={"encoder": _INT8, DEFAULT: replace(_INT8, smooth=None)},
        drift_limit_nat=0.03,
    ),
    Recipe(
        name="pytorch-fp16",
        runtime="torch",
        why="Half the memory and the tensor cores of a CUDA GPU.",
        device="cuda",
        components={DEFAULT: _FP16},
        drift_limit_nat=0.01,
    ),
    Recipe(name="onnx-fp32", runtime="ort", why="Token-exact, with standard operators only: also for OpenVINO, TensorRT and JavaScript."),
    Recipe(
        name="onnx-int8",
        runtime="ort",
        why="Portable INT8: the encoder's 7-bit weights saturate on no CPU.",
        components={"encoder": _INT7, DEFAULT: _BLOCKS8},
        drift_limit_nat=0.02,
    ),
    Recipe(
        name="onnx-int8-single",
        runtime="ort",
        why="onnx-int8 with the whole greedy search in one graph: one call returns the token ids.",
        components={"encoder": _INT7, DEFAULT: _BLOCKS8},
        layout="single",
        drift_limit_nat=0.02,
    ),
    Recipe(
        name="onnx-int4",
        runtime="ort",
        why="The smallest artifact: an INT8 encoder, limited by arithmetic, and a 4-bit decoder, limited by memory bandwidth.",
        components={"encoder": _INT7, DEFAULT: _BLOCKS4},
        drift_limit_nat=0.05,
    ),
    Recipe(
        name="onnx-int8-full",
        runtime="ort",
        why="Full-range INT8 for CPUs that add products in 32 bits: x86 with VNNI, 64-bit ARM with dot products.",
        cpu_features=("vnni", "dotprod"),
        components={"encoder": _INT8, DEFAULT: _BLOCKS8},
        drift_limit_nat=0.02,
    ),
    Recipe(
        name="onnx-int8-fast",
        runtime="ort",
        why="Approximate: three quarters of the image width and height halve the encoder's work. Used only if you name it.",
        components={"encoder": _INT7, DEFAULT: _BLOCKS8},
        image_scale=0.75,
        drift_limit_nat=0.1,
    ),
    Recipe(
        name="onnx-fp16",
        runtime="ort",
        why="FP16 graphs for the CUDA execution provider.",
        device="cuda",
        components={DEFAULT: _FP16},
        drift_limit_nat=0.01,
    ),
)

DEPLOYABLE = frozenset({"onnx-int8", "onnx-int4", "pytorch-int8", "onnx-fp32", "onnx-fp16", "pytorch-fp16"})
"""Recipes that are exported if the user names none. Recipes for a GPU are left out on a machine without one."""

ALL = "all"
"""Name for all recipes in `RECIPES`."""


def deployable_recipes(*, cuda: bool) -> list[Recipe]:
    """Return the recipes that are exported if the user names none, in the order of `RECIPES`."""
    return [recipe for recipe in RECIPES if recipe.name in DEPLOYABLE and (cuda or recipe.device == "cpu")]


def find_recipes(names_or_files: Sequence[str], *, cuda: bool) -> list[Recipe]:
    """Return the recipes that the user named.

    Args:
        names_or_files: Names of recipes, JSON files, or "all" for all of `RECIPES`. If empty, the deployable recipes are returned.
        cuda: Whether this machine has an NVIDIA GPU.

    Raises:
        UnknownNameError, RecipeError: See `find_recipe`.
    """
    if not names_or_files:
        return deployable_recipes(cuda=cuda)
    return [recipe for name in names_or_files for recipe in (RECIPES if name == ALL else (find_recipe(name),))]


def for_task(recipes: Sequence[Recipe], names: Collection[str], layouts: Collection[str], left_out: Collection[str]) -> list[Recipe]:
    """Return the recipes that a checkpoint's task can use.

    Args:
        recipes: From `find_recipes`.
        names: Those that the user named. They are all returned.
        layouts: Layouts that the task has.
        left_out: Recipes that are exported by name only.
    """
    return [recipe for recipe in recipes if recipe.name in names or (recipe.layout in layouts and recipe.name not in left_out)]


def find_recipe(name_or_file: str) -> Recipe:
    """Return the recipe of a name in `RECIPES`, or read a recipe from a .json file.

    Raises:
        UnknownNameError: No recipe has that name.
        RecipeError: The file cannot be read, or a field is unknown or has an invalid value.
    """
    by_name = {recipe.name: recipe for recipe in RECIPES}
    if name_or_file in by_name:
        return by_name[name_or_file]
    if not name_or_file.endswith(".json"):
        raise UnknownNameError("recipe", name_or_file, [*by_name, ALL, "a .json file"])
    try:
        parsed = json.loads(Path(name_or_file).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise RecipeError(f"{name_or_file}: cannot read this recipe: {getattr(error, 'strerror', None) or error}") from error
    recipe, problems = json_dataclass.load(Recipe, parsed)
    if recipe is None:
        raise RecipeError(f"{name_or_file}: {'; '.join(problems)}")
    return recipe
