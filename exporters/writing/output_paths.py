"""Names and paths of the artifacts that an export writes."""

import re
from collections.abc import Sequence
from pathlib import Path

from exporters.recipe import Recipe
from exporters.writing.artifact_writer import guard_output
from runtimes.errors import RecipeError


def name_of(source: str) -> str:
    """Return a checkpoint's name, with which its artifacts' names start: the last part of its directory, hub id or file, without suffix.

    A snapshot in the hub's cache is named after its repository, not after its commit.
    """
    path = Path(source)
    if path.is_file():
        return path.stem
    if not path.is_dir():
        return source.rsplit("/", 1)[-1]
    if snapshot := re.search(r"/models--(?:[^/]*--)?([^/]+)/snapshots/[^/]+$", path.resolve().as_posix()):
        return snapshot[1]
    return path.resolve().name


def merged_name(checkpoint_name: str, adapter: Path | None) -> str:
    """Return the name of a checkpoint with an adapter merged into it; without an adapter, the checkpoint's own."""
    return checkpoint_name if adapter is None else f"{checkpoint_name}-{name_of(str(adapter))}"


def output_paths(checkpoint_name: str, recipes: Sequence[Recipe], output: Path, *, overwrite: bool) -> dict[str, Path]:
    """Return the artifact directory of each recipe, and check that each may be written.

    Args:
        checkpoint_name: See `name_of`.
        recipes: The recipes to export.
        output: Folder of the artifacts.
        overwrite: Existing artifacts may be replaced.

    Returns:
        Recipe name → directory.

    Raises:
        RecipeError: Two recipes have the same name.
        OutputExistsError, OutputError: See `guard_output`.
    """
    names = [recipe.name for recipe in recipes]
    if duplicates := sorted({name for name in names if names.count(name) > 1}):
        raise RecipeError(f"two recipes are named {duplicates[0]}; artifacts are named after their recipes")
    paths = {name: output / f"{checkpoint_name}-{name}" for name in names}
    for path in paths.values():
        guard_output(path, overwrite=overwrite)
    return paths
