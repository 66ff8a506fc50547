"""Find a checkpoint's safetensors files. `summary` uses this module without torch, so it must not import torch."""

import json
from pathlib import Path

from runtimes.errors import CheckpointError

WEIGHTS, SHARDS = "model.safetensors", "model.safetensors.index.json"
MAX_JSON_BYTES = 1 << 24


def find_safetensors(directory: Path, source: str) -> tuple[Path, ...]:
    """Return model.safetensors, or else the shards that its index lists, sorted by name; () if the directory has neither.

    Args:
        directory: The checkpoint's folder.
        source: What the user named, for error messages.

    Raises:
        CheckpointError: The index cannot be read, or it lists a file that is not in the directory.
    """
    if (directory / WEIGHTS).is_file():
        return (directory / WEIGHTS,)
    if not (directory / SHARDS).is_file():
        return ()
    try:
        with (directory / SHARDS).open("rb") as stream:
            names = sorted(set(json.loads(stream.read(MAX_JSON_BYTES))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(source, f"cannot read {SHARDS}: {first_line(error)}") from error
    if any(Path(str(name)).name != name or not (directory / name).is_file() for name in names):
        raise CheckpointError(source, f"{SHARDS} names files that are not beside it")
    return tuple(directory / name for name in names)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or the name of its class if it has no text."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
