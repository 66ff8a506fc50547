"""Where artifacts go: a checkpoint's name and recipes go in, directories that may be written come out."""

from collections.abc import Sequence
from pathlib import Path

from exporters.recipes import Recipe
from exporters.writing.artifact_writer import guard_output
from runtimes.errors import RecipeError


def name_of(source: str) -> str:
    """Return what a checkpoint's artifacts are named after: the last part of its directory or hub id."""
    return Path(source).resolve().name if Path(source).is_dir() else source.rsplit("/", 1)[-1]


def output_paths(checkpoint_name: str, recipes: Sequence[Recipe], output: Path, *, overwrite: bool) -> dict[str, Path]:
    """Return recipe name → artifact directory, after seeing that each may be written.

    Raises:
        RecipeError: Two recipes have the same name.
        OutputExistsError, OutputError: See `guard_output`.
    """
    names = [recipe.name for recipe in recipes]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise RecipeError(f"recipe {twice[0]} is asked for twice; artifacts are named after their recipes")
    paths = {name: output / f"{checkpoint_name}-{name}" for name in names}
    for path in paths.values():
        guard_output(path, overwrite=overwrite)
    return paths
