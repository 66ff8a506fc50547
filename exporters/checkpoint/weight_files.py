"""Find the files of a checkpoint's weights. `summary` uses this module without torch, so it must not import torch."""

import json
import os
from collections.abc import Iterable, Sequence
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


def find_prefix(names: Sequence[str], known: Iterable[str]) -> str:
    """Return the prefix of all tensor names that a training wrapper added, such as `module.` or `base_model.model.`; "" without one.

    Args:
        names: Names of the tensors in the files.
        known: Names of tensors in files without such a prefix.
    """
    common = os.path.commonprefix(names)  # noqa: RUF071 - cut at a dot below
    prefix = common[: common.rfind(".") + 1]
    return "" if any(name.startswith(prefix) for name in known) else prefix


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or the name of its class if it has no text."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
