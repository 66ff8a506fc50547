"""Describe a checkpoint from its JSON files and the headers of its weights, without transformers.

`toolkit info` uses this module. `exporters.checkpoint.checkpoint` opens a checkpoint for export.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exporters.checkpoint.adapter_files import find_adapter
from exporters.checkpoint.generation_settings import read_defaults
from exporters.checkpoint.image_settings import FILES, read_image_settings
from exporters.checkpoint.refusals import (
    EXAMPLE,
    SIZES,
    refuse_both,
    refuse_config,
    refuse_dtypes,
    refuse_names,
    refuse_tokenizer,
    refuse_weights,
    task_of,
)
from exporters.checkpoint.weight_files import PICKLES, WEIGHTS, WRAPPERS, find_shards, read_object, refuse_rows, refuse_shards
from exporters.checkpoint.weight_headers import TABLE, WeightSummary, other_states, summarize_weights
from exporters.families.architectures import OWN_PARTS
from runtimes.errors import CheckpointError

VOCABULARY, POSITIONS = 30524, 512
"""transformers' values of `vocab_size` and `max_position_embeddings`, if config.json has none."""
IDS = ("bos_token_id", "eos_token_id", "sep_token_id", "pad_token_id")
IMAGE = ("do_resize", "size", "resample", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")
IMAGE_BOOKKEEPING = ("image_processor_type", "feature_extractor_type", "processor_class", "do_convert_rgb")
BOOKKEEPING = ("_from_model_config", "transformers_version")
OWN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
"""Token ids in generation_config.json. transformers' captioner takes those of the text model."""
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pth")


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
        "parameters", "dtypes": number of parameters, in total (None for pickles without torch) and per dtype;
        "tied": whether the head and the word embeddings are the same tensor (None if unknown, or without a head over words);
        "image": the preprocessing in preprocessor_config.json, or else in processor_config.json;
        "defaults": generation_config.json, and the text model's token ids.

    Raises:
        CheckpointError: A JSON file or the header of a weight file cannot be read.
    """
    config = read_object(directory / "config.json")
    shards_in_layout = next((shards for name in (WEIGHTS, PICKLES) if (shards := find_shards(directory, name, str(directory)))), ())
    files = shards_in_layout or sorted(file for file in directory.iterdir() if _is_weights(file))
    weights = summarize_weights(shards_in_layout or [file for file in files if file.suffix == ".safetensors"])
    text, architectures = _section(config, "text_config"), config.get("architectures")
    generation = read_object(directory / "generation_config.json") if (directory / "generation_config.json").is_file() else {}
    image_file = next((name for name in FILES if (directory / name).is_file()), None)
    processor = read_object(directory / image_file) if image_file else {}
    processor = _section(processor, "image_processor") or processor
    defaults_problem, left_out = _defaults(directory, config)
    problems = [
        refuse_config(config),
        refuse_both(directory) or refuse_shards(files, weights.stored, str(directory)) if shards_in_layout else refuse_weights(directory),
        refuse_names(weights.names, OWN_PARTS.get(task_of(config), ())) or refuse_dtypes(weights.dtypes),
        refuse_rows(TABLE, weights.table_rows, text.get("vocab_size", VOCABULARY)) if text else None,
        _image_problem(directory),
        defaults_problem,
        refuse_tokenizer(directory),
    ]
    ignored = _wrappers(weights)
    ignored += [f"{name}: a tensor beside those with the prefix" for name in weights.beside]
    ignored += [f"{name}: a buffer of 0, 1, 2, ..." for name in weights.names if name.endswith(".position_ids")]
    ignored += [f"{file.name}: {files[0].name} is read" for file in sorted(directory.iterdir()) if _is_weights(file) and file not in files]
    ignored += [
        f"{image_file}: {key}: has no effect in BLIP"
        for key, value in processor.items()
        if key not in (*IMAGE, *IMAGE_BOOKKEEPING) and not (key.startswith("do_") and value)
    ]
    ignored += [f"{setting}: the toolkit does not implement it" for setting in left_out]
    ignored += [
        f"generation_config.json: {key} {generation[key]!r}: BLIP uses those of text_config in config.json"
        for key in OWN_IDS
        if generation.get(key) not in (None, text.get("sep_token_id" if key == "eos_token_id" else key, generation.get(key)))
    ]
    return {
        "name": directory.resolve().name,
        "family": None if problems[0] else f"blip {task_of(config)}",
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
        "parameters": sum(weights.dtypes.values()) if weights.names else None,
        "dtypes": weights.dtypes,
        "tied": weights.tied,
        "image": {key: processor[key] for key in IMAGE if key in processor},
        "defaults": {key: text[key] for key in IDS if key in text} | {key: generation[key] for key in generation if key not in BOOKKEEPING},
    }


def summarize_file(file: Path) -> dict[str, Any]:
    """Return a description of one file of weights, with the keys of `summarize`. Settings are empty, since the file has none.

    Raises:
        CheckpointError: The file is damaged.
    """
    weights = summarize_weights((file,))
    problem = refuse_names(weights.names, OWN_PARTS["caption"]) or refuse_dtypes(weights.dtypes)
    other = other_states(file) if weights.names and file.suffix != ".safetensors" else ()
    if weights.names and TABLE not in weights.names:
        problem = problem or f"has no tensor {TABLE}: this is no captioner; export a captioner, such as {EXAMPLE}"
    return {
        "name": file.stem,
        "family": None if problem or not weights.names else "blip caption",
        "refused": [problem] if problem else [],
        "ignored": [*_wrappers(weights), *(f"{key}: another state of the model" for key in other)],
        "architectures": [],
        "model": {},
        "weight_files": [file.name],
        "bytes": file.stat().st_size,
        "parameters": sum(weights.dtypes.values()) if weights.names else None,
        "dtypes": weights.dtypes,
        "tied": weights.tied,
        "image": {},
        "defaults": {},
        "export": f"toolkit export {file} --like FOLDER, with the config.json and the tokenizer of its base model",
    }


def summarize_adapter(adapter: Path) -> dict[str, Any]:
    """Return a description of a PEFT adapter.

    Returns:
        JSON values by key: "type", "base" (the model that the adapter names, or None), "rank" (None for types without one),
        "target_modules", "weight_file", "bytes".

    Raises:
        CheckpointError: See `find_adapter`.
    """
    files = find_adapter(adapter)
    targets = files.config.get("target_modules")
    return {
        "type": files.config["peft_type"],
        "base": files.base,
        "rank": files.config.get("r"),
        "target_modules": sorted(map(str, targets)) if isinstance(targets, list) else targets,
        "weight_file": files.weights.name,
        "bytes": files.weights.stat().st_size,
    }


def _wrappers(weights: WeightSummary) -> list[str]:
    """Describe the parts of names that training wrappers added."""
    parts = [wrapper for wrapper in WRAPPERS if any(wrapper in name for name in weights.stored)]
    inner = [f"{part} in names of tensors: a training wrapper added it" for part in parts]
    return inner + ([f"prefix {weights.prefix} of all names of tensors: a training wrapper added it"] if weights.prefix else [])


def _section(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return an object within a JSON object; {} if it is missing or something else."""
    section = values.get(name)
    return section if isinstance(section, dict) else {}


def _is_weights(file: Path) -> bool:
    return file.suffix in WEIGHT_SUFFIXES and file.is_file()


def _defaults(directory: Path, config: Mapping[str, Any]) -> tuple[str | None, tuple[str, ...]]:
    """Return why the decoding settings cannot be defaults of artifacts, or None; and the settings that artifacts do not apply."""
    text = {"max_position_embeddings": POSITIONS, "vocab_size": VOCABULARY} | _section(config, "text_config")
    sizes = (text["max_position_embeddings"], text["vocab_size"])
    if any(type(size) is not int for size in sizes):  # refused for this reason
        return None, ()
    try:
        return None, read_defaults(directory, {**config, "text_config": text}, *sizes, "")[1]
    except CheckpointError as error:
        return str(error).removeprefix(": "), ()


def _image_problem(directory: Path) -> str | None:
    """Return why the settings of the image processor cannot be used, or None."""
    try:
        read_image_settings(directory, "")
    except CheckpointError as error:
        return str(error).removeprefix(": ")
    return None
