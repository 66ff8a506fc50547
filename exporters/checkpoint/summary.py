"""What a checkpoint's folder is, from its configuration and its safetensors headers: no library that could build it is needed.

`exporters.checkpoint.checkpoint` reads a checkpoint to export it; this one only shows it.
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from runtimes.errors import CheckpointError

WEIGHTS, SHARDS = "model.safetensors", "model.safetensors.index.json"
TABLE = "text_decoder.bert.embeddings.word_embeddings.weight"
HEAD = "text_decoder.cls.predictions.decoder.weight"

SIZES = {
    "vision_config": ("image_size", "patch_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    "text_config": (
        "vocab_size",
        "max_position_embeddings",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
    ),
}
"""Section of config.json → the sizes that describe a model."""
IDS = ("bos_token_id", "eos_token_id", "sep_token_id", "pad_token_id")
IMAGE = ("do_resize", "size", "resample", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")
BOOKKEEPING = ("_from_model_config", "transformers_version")
MAX_JSON_BYTES = 1 << 24
MAX_HEADER_BYTES = 1 << 24
BLOCK_BYTES = 1 << 20


def summarize(directory: Path) -> dict[str, Any]:
    """Return a checkpoint's description, as JSON values.

    "architectures", "model" (sizes as config.json states them), "weight_files", "bytes", "parameters" and "dtypes" (parameters per type;
    None and empty where the weights are no safetensors), "tied" (whether the head is the word embeddings; None where it cannot be seen),
    "image" (as preprocessor_config.json states it), "defaults" (of generation_config.json, and the ids of the text model).

    Raises:
        CheckpointError: config.json or a weight file's header cannot be read.
    """
    config = _json(directory / "config.json")
    files = _weight_files(directory)
    tensors = {name: (file, entry) for file in files if file.suffix == ".safetensors" for name, entry in _header(file).items()}
    dtypes: dict[str, int] = {}
    for name, (file, entry) in tensors.items():
        try:
            dtypes[entry["dtype"]] = dtypes.get(entry["dtype"], 0) + math.prod(entry["shape"])
        except (KeyError, TypeError) as error:
            raise CheckpointError(str(file), f"its header does not describe {name}") from error
    text = config.get("text_config") or {}
    generation = _json(directory / "generation_config.json") if (directory / "generation_config.json").is_file() else {}
    processor = _json(directory / "preprocessor_config.json") if (directory / "preprocessor_config.json").is_file() else {}
    return {
        "name": directory.resolve().name,
        "architectures": [str(name) for name in config.get("architectures") or [config.get("model_type")]],
        "model": {
            f"{section.removesuffix('_config')}_{key}": (config.get(section) or {}).get(key)
            for section, keys in SIZES.items()
            for key in keys
        },
        "weight_files": [file.name for file in files],
        "bytes": sum(file.stat().st_size for file in files),
        "parameters": sum(dtypes.values()) if tensors else None,
        "dtypes": dtypes,
        "tied": _tied(tensors),
        "image": {key: processor[key] for key in IMAGE if key in processor},
        "defaults": {key: text[key] for key in IDS if key in text} | {key: generation[key] for key in generation if key not in BOOKKEEPING},
    }


def _json(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            found = json.loads(stream.read(MAX_JSON_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(str(path), f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not isinstance(found, dict):
        raise CheckpointError(str(path), "is not a JSON object")
    return found


def _weight_files(directory: Path) -> list[Path]:
    """Return the files of the weights: one, or the shards of an index; else whatever looks like weights."""
    if (directory / WEIGHTS).is_file():
        return [directory / WEIGHTS]
    if (directory / SHARDS).is_file():
        shards = _json(directory / SHARDS).get("weight_map")
        names = set(shards.values()) if isinstance(shards, dict) else set()
        if any(not isinstance(name, str) or Path(name).name != name or not (directory / name).is_file() for name in names):
            raise CheckpointError(str(directory / SHARDS), "names files that are not beside it")
        return [directory / name for name in sorted(names)]
    return sorted(file for suffix in ("*.safetensors", "*.bin", "*.pth") for file in directory.glob(suffix))


def _header(file: Path) -> dict[str, Any]:
    """Return name → dtype, shape and data_offsets of a safetensors file, which starts with their length and their JSON."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > MAX_HEADER_BYTES:
                raise CheckpointError(str(file), f"its header claims {length:,} bytes")
            entries = json.loads(stream.read(length))
            entries.pop("__metadata__", None)
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(str(file), "is not a safetensors file") from error
    return {name: {**entry, "start": 8 + length} for name, entry in entries.items() if isinstance(entry, dict)}


def _tied(tensors: Mapping[str, tuple[Path, Mapping[str, Any]]]) -> bool | None:
    """Return whether the head is the table of word embeddings: it is not stored, or is stored as the same bytes."""
    if TABLE not in tensors:
        return None
    if HEAD not in tensors:
        return True
    (_, table), (_, head) = tensors[TABLE], tensors[HEAD]
    if (table["dtype"], table["shape"]) != (head["dtype"], head["shape"]):
        return False
    return all(one == other for one, other in zip(_blocks(*tensors[TABLE]), _blocks(*tensors[HEAD]), strict=True))


def _blocks(file: Path, entry: Mapping[str, Any]) -> Iterator[bytes]:
    """Yield the bytes of a tensor."""
    try:
        begin, end = entry["data_offsets"]
        with file.open("rb") as stream:
            stream.seek(entry["start"] + begin)
            for left in range(end - begin, 0, -BLOCK_BYTES):
                yield stream.read(min(left, BLOCK_BYTES))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(str(file), "its header does not describe its tensors") from error
