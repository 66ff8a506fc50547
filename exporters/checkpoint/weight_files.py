"""Find the files of a checkpoint's weights. `summary` uses this module without torch, so it must not import torch."""

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from runtimes.errors import CheckpointError

WEIGHTS, PICKLES = "model.safetensors", "pytorch_model.bin"
INDEX = ".index.json"
"""Suffix of the file that lists the shards of weights in several files."""
MAX_JSON_BYTES = 1 << 24


def find_shards(directory: Path, name: str, source: str) -> tuple[Path, ...]:
    """Return the file `name`, or else the shards that its index lists, sorted by name; () if the directory has neither.

    Args:
        directory: The checkpoint's folder.
        name: `WEIGHTS` or `PICKLES`.
        source: What the user named, for error messages.

    Raises:
        CheckpointError: The index cannot be read, or it lists a file that is not in the directory.
    """
    if (directory / name).is_file():
        return (directory / name,)
    index = directory / f"{name}{INDEX}"
    if not index.is_file():
        return ()
    try:
        with index.open("rb") as stream:
            shards = sorted(set(json.loads(stream.read(MAX_JSON_BYTES))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(source, f"cannot read {index.name}: {first_line(error)}") from error
    if any(Path(str(shard)).name != shard or not (directory / shard).is_file() for shard in shards):
        raise CheckpointError(source, f"{index.name} lists files that are missing; copy or download all shards")
    return tuple(directory / shard for shard in shards)


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object; raise CheckpointError if the file has none."""
    try:
        with path.open("rb") as stream:
            parsed = json.loads(stream.read(MAX_JSON_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(str(path), f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not isinstance(parsed, dict):
        raise CheckpointError(str(path), "is not a JSON object")
    return parsed


def find_prefix(names: Sequence[str], known: Collection[str], source: str) -> str:
    """Return the prefix of a model's tensor names that a training wrapper added, such as `module.` or `base_model.model.`; "" without one.

    Args:
        names: Names of the tensors in the files. Tensors of the wrapper itself, such as a loss, do not have the prefix.
        known: Names of tensors of the model. A file without any of them has no prefix.
        source: What the user named, for error messages.

    Raises:
        CheckpointError: The files have several models.
    """
    prefixes = sorted({name.removesuffix(end) for name in names for end in known if name == end or name.endswith(f".{end}")})
    if "" in prefixes or not prefixes:
        return ""
    if len(prefixes) > 1:
        raise CheckpointError(source, f"has the tensors of several models, under {' and '.join(prefixes)}; save the one to export alone")
    return prefixes[0]


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or the name of its class if it has no text."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
