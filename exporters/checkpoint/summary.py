"""Describe a checkpoint's folder from its JSON files and safetensors headers, without torch or transformers.

`toolkit info` uses this module. `exporters.checkpoint.checkpoint` opens a checkpoint for export.
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from exporters.checkpoint.generation_settings import UNSUPPORTED
from exporters.checkpoint.image_settings import FILES, read_image_settings
from exporters.checkpoint.refusals import refuse_adapter, refuse_config, refuse_formats, refuse_names
from exporters.checkpoint.weight_files import WEIGHTS, find_prefix, find_shards, read_object
from runtimes.errors import CheckpointError

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
"""Section of config.json → its keys that give the model's sizes."""
IDS = ("bos_token_id", "eos_token_id", "sep_token_id", "pad_token_id")
IMAGE = ("do_resize", "size", "resample", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")
IMAGE_BOOKKEEPING = ("image_processor_type", "feature_extractor_type", "processor_class", "do_convert_rgb")
BOOKKEEPING = ("_from_model_config", "transformers_version")
OWN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
"""Token ids in generation_config.json. transformers' captioner takes those of the text model."""
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pth")
MAX_HEADER_BYTES = 1 << 24
BLOCK_BYTES = 1 << 20


def summarize(directory: Path) -> dict[str, Any]:
    """Return a description of a checkpoint.

    Returns:
        JSON values by key:
        "name", "architectures": the folder's name, and config.json's architectures;
        "family": family and task of the artifacts, or None;
        "refused": why an export is refused, as far as JSON files and headers show it, and what to do;
        "ignored": parts of the checkpoint that have no effect on artifacts, each with the reason;
        "model": the sizes in config.json;
        "weight_files", "bytes": names and total size of the weight files;
        "parameters", "dtypes": number of parameters, in total (None if the weights are not safetensors) and per dtype;
        "tied": whether the head and the word embeddings are the same tensor (None if unknown);
        "image": the preprocessing in preprocessor_config.json, or else in processor_config.json;
        "defaults": generation_config.json, and the text model's token ids.

    Raises:
        CheckpointError: A JSON file or the header of a weight file cannot be read.
    """
    config = read_object(directory / "config.json")
    files = find_shards(directory, WEIGHTS, str(directory)) or sorted(
        file for file in directory.iterdir() if file.suffix in WEIGHT_SUFFIXES
    )
    tensors = {name: (file, entry) for file in files if file.suffix == ".safetensors" for name, entry in _header(file).items()}
    dtypes: dict[str, int] = {}
    for name, (file, entry) in tensors.items():
        try:
            dtypes[entry["dtype"]] = dtypes.get(entry["dtype"], 0) + math.prod(entry["shape"])
        except (KeyError, TypeError) as error:
            raise CheckpointError(str(file), f"its header has no dtype or shape for {name}") from error
    text, architectures = _section(config, "text_config"), config.get("architectures")
    generation = read_object(directory / "generation_config.json") if (directory / "generation_config.json").is_file() else {}
    image_file = next((name for name in FILES if (directory / name).is_file()), None)
    processor = read_object(directory / image_file) if image_file else {}
    processor = _section(processor, "image_processor") or processor
    prefix = find_prefix(list(tensors), (TABLE,)) if tensors else ""
    tensors = {name.removeprefix(prefix): entry for name, entry in tensors.items()}
    problems = [
        refuse_config(config),
        None if files else refuse_adapter(directory) or refuse_formats(directory),
        refuse_names(tensors),
        _image_problem(directory),
    ]
    ignored = [f"prefix {prefix} of all names of tensors: a training wrapper added it"] if prefix else []
    ignored += [f"{name}: a buffer of 0, 1, 2, ..." for name in tensors if name.endswith(".position_ids")]
    ignored += [f"{file.name}: {files[0].name} is read" for file in sorted(directory.iterdir()) if _is_weights(file) and file not in files]
    ignored += [f"{image_file}: {key}: has no effect in BLIP" for key in processor if key not in (*IMAGE, *IMAGE_BOOKKEEPING)]
    settings = config | text | generation
    ignored += [
        f"{key} {settings[key]!r}: not a setting of artifacts" for key in UNSUPPORTED if settings.get(key) not in (None, UNSUPPORTED[key])
    ]
    ignored += [
        f"generation_config.json: {key} {generation[key]!r}: BLIP uses those of text_config in config.json"
        for key in OWN_IDS
        if generation.get(key) not in (None, text.get("sep_token_id" if key == "eos_token_id" else key, generation.get(key)))
    ]
    return {
        "name": directory.resolve().name,
        "family": None if problems[0] else "blip caption",
        "refused": [problem for problem in problems if problem],
        "ignored": ignored,
        "architectures": [str(name) for name in (isinstance(architectures, list) and architectures) or [config.get("model_type")]],
        "model": {
            f"{section.removesuffix('_config')}_{key}": _section(config, section).get(key)
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


def _section(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return an object within a JSON object; {} if it is missing or something else."""
    section = values.get(name)
    return section if isinstance(section, dict) else {}


def _is_weights(file: Path) -> bool:
    return file.suffix in WEIGHT_SUFFIXES and file.is_file()


def _image_problem(directory: Path) -> str | None:
    """Return why the settings of the image processor cannot be used, or None."""
    try:
        read_image_settings(directory, "")
    except CheckpointError as error:
        return str(error).removeprefix(": ")
    return None


def _header(file: Path) -> dict[str, Any]:
    """Read a safetensors header (8 bytes of length, then JSON); return tensor name → dtype, shape, data_offsets, start of the data."""
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
    """Return whether the head is the word embeddings: it is not stored, or its stored bytes are the same. None without word embeddings."""
    if TABLE not in tensors:
        return None
    if HEAD not in tensors:
        return True
    (_, table), (_, head) = tensors[TABLE], tensors[HEAD]
    if (table["dtype"], table["shape"]) != (head["dtype"], head["shape"]):
        return False
    return all(a == b for a, b in zip(_blocks(*tensors[TABLE]), _blocks(*tensors[HEAD]), strict=True))


def _blocks(file: Path, entry: Mapping[str, Any]) -> Iterator[bytes]:
    """Yield the bytes of a tensor in blocks of `BLOCK_BYTES`."""
    try:
        begin, end = entry["data_offsets"]
        with file.open("rb") as stream:
            stream.seek(entry["start"] + begin)
            for left in range(end - begin, 0, -BLOCK_BYTES):
                yield stream.read(min(left, BLOCK_BYTES))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(str(file), "its header has wrong data_offsets") from error
