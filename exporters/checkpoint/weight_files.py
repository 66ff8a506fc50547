"""Find the files of a checkpoint's weights. `summary` uses this module without torch, so it must not import torch."""

import codecs
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from runtimes.errors import CheckpointError

WEIGHTS, PICKLES = "model.safetensors", "pytorch_model.bin"
INDEX = ".index.json"
"""Suffix of the file that lists the shards of weights in several files."""
MAX_JSON_BYTES = 1 << 24
WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Parts that torch.compile, FSDP and activation checkpointing add within the names of tensors."""


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
    index = f"{name}{INDEX}"
    if not (directory / index).is_file():
        return ()
    shards = sorted(set(_weight_map(directory / index, source).values()))
    if any(Path(str(shard)).name != shard or not (directory / shard).is_file() for shard in shards):
        raise CheckpointError(source, f"{index} lists files that are missing; copy or download all shards")
    return tuple(directory / shard for shard in shards)


def refuse_shards(files: Sequence[Path], names: Collection[str], source: str) -> str | None:
    """Return which shard lacks tensors that its index lists, or None.

    Args:
        files: Result of `find_shards`.
        names: Names of the tensors in them, as stored.
        source: What the user named, for error messages.

    Raises:
        CheckpointError: The index cannot be read.
    """
    index = files[0].with_name(f"{WEIGHTS if files[0].suffix == '.safetensors' else PICKLES}{INDEX}")
    if files[0].name in (WEIGHTS, PICKLES) or not index.is_file():
        return None
    lacking = {name: shard for name, shard in _weight_map(index, source).items() if name not in names}
    if not lacking:
        return None
    name, shard = next(iter(sorted(lacking.items())))
    return f"{shard} lacks {len(lacking)} tensors that {index.name} lists, such as {name}; copy or download {shard} again"


def _weight_map(index: Path, source: str) -> dict[str, str]:
    try:
        return dict(read_object(index)["weight_map"].items())
    except (CheckpointError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(source, f"cannot read {index.name}: {first_line(error)}") from error


def load_json(path: Path) -> Any:  # noqa: ANN401 - what the file contains
    """Parse a JSON file as transformers does: in UTF-8 without a byte-order mark. Raises OSError, ValueError or RecursionError."""
    with path.open("rb") as stream:
        content = stream.read(MAX_JSON_BYTES)
    if content.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ValueError("it starts with a byte-order mark; save it as UTF-8 without one")
    return json.loads(content.decode())


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object; raise CheckpointError if the file has none."""
    try:
        parsed = load_json(path)
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(str(path), f"cannot be read: {first_line(error)}; correct it, or copy it again") from error
    if not isinstance(parsed, dict):
        raise CheckpointError(str(path), "is not a JSON object")
    return parsed


def refuse_rows(table: str, rows: int | None, vocabulary: int) -> str | None:
    """Return that word embeddings have another number of rows than config.json, with the cure, or None."""
    if rows in (None, vocabulary):
        return None
    return f"{table} has {rows} rows, and text_config.vocab_size in config.json is {vocabulary}; write {rows}"


def plain_name(name: str) -> str:
    """Return the name of a tensor without the parts in `WRAPPERS`."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


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
