"""Name what a checkpoint is if it cannot be exported, and what to do; without torch or transformers."""

import json
import operator
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from exporters.checkpoint.weight_files import INDEX, PICKLES, WEIGHTS
from exporters.families.architectures import FAMILIES, MODEL_TYPES, TASKS
from runtimes.artifact.manifest import MANIFEST_NAME

EXAMPLE = "Salesforce/blip-image-captioning-base"
SUPPORTED = " or ".join(FAMILIES)
ADAPTER = "adapter_config.json"
CONFIG = "config.json"
TOKENIZERS = ("tokenizer.json", "vocab.txt")
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
DIVIDED: tuple[tuple[str, str, str, Callable[[int, int], bool]], ...] = (
    ("hidden_size", "num_attention_heads", "a multiple of", lambda width, heads: width % heads == 0),
    ("image_size", "patch_size", "at least", operator.ge),
)
"""Two keys of a section, how the first relates to the second, and the test of this relation."""
KINDS = {
    "blip-2": "BLIP-2, another architecture than BLIP",
    "blip_2": "BLIP-2, another architecture than BLIP",
    "instructblip": "InstructBLIP, another architecture than BLIP",
    "instructblipvideo": "InstructBLIP, another architecture than BLIP",
    "git": "GIT, another architecture than BLIP",
    "vision-encoder-decoder": "an encoder-decoder of other models than BLIP",
}
"""`model_type` of config.json → what it is."""
CLASSES = {
    "BlipModel": "BLIP without a captioner's decoder",
    "BlipTextLMHeadModel": "the text decoder alone; save the whole model",
    "BlipTextModel": "a text encoder alone; save the whole model",
    "BlipVisionModel": "the vision encoder alone; save the whole model",
}
"""Architecture of config.json → what it is."""
MARKS = {
    "qformer.": "BLIP-2 or InstructBLIP",
    "language_model.": "BLIP-2 or InstructBLIP",
    "itm_head.": "BLIP that compares images with texts",
    "text_encoder.": "BLIP that answers questions, compares images with texts, or was only pre-trained",
    "text_decoder.": "BLIP that generates captions or answers",
    "text_model.": CLASSES["BlipModel"],
}
"""Start of a tensor's name → what the checkpoint is, although config.json does not name it."""
PEFT_PARTS = ("lora_", "base_layer", "modules_to_save", "original_module", "hada_w", "lokr_w", "oft_r", "ia3_l")
"""Starts of parts of the names that PEFT gives to tensors of adapters."""
QUANTIZED_PARTS = (
    *("SCB", "weight_format", "absmax", "quant_map", "nested_absmax", "nested_quant_map", "quant_state"),  # bitsandbytes
    *("weight_scale", "weight_scale_inv", "input_scale", "weight_zero_point"),  # FP8, compressed-tensors
    *("qweight", "qzeros", "g_idx"),  # GPTQ, AWQ
)
"""Parts of the names of tensors that belong to quantized weights."""
QUANTIZED_DTYPES = re.compile(r"(?i)(f|float|i|u|int|uint)[48]")
"""Starts of the names of dtypes, in safetensors and in torch, in which weights are quantized."""
REPARAMETRIZED_PARTS = {
    "weight_orig": 'torch.nn.utils.prune.remove(module, "weight")',
    "parametrizations": 'torch.nn.utils.parametrize.remove_parametrizations(module, "weight")',
    "weight_g": "torch.nn.utils.remove_weight_norm(module)",
}
"""Part of the names of tensors from which a weight is computed → what stores the weight instead."""
FLAT_PARTS = ("_flat_param", "flat_param")
"""Parts of the names of tensors in which FSDP joins many parameters."""
SINGLE = (".pth", ".pth.tar", ".pt", ".ckpt", ".bin", ".pkl", ".safetensors")
"""Suffixes of weights in one file, which `toolkit export` reads if it is named."""
OTHER_WEIGHTS = (".h5", ".msgpack", ".gguf", ".onnx")
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".7z")
TRAINING = ("optimizer", "scheduler", "scaler", "rng_state", "random_states", "training_args", "trainer_state")
"""Starts of the names of files that training programs write beside the weights."""
SHARD = re.compile(r"-\d+-of-\d+\.")
SPLIT_BY_DEEPSPEED = ("global_step*", "*_model_states.pt", "*_optim_states.pt")


def refuse_config(config: Mapping[str, Any]) -> str | None:
    """Return why the model of a config.json cannot be exported, or None."""
    architectures = config.get("architectures")
    names = [str(name) for name in architectures] if isinstance(architectures, list) else []
    model_type = str(config.get("model_type"))
    if quantization := config.get("quantization_config"):
        method = quantization.get("quant_method", "an unknown method") if isinstance(quantization, dict) else quantization
        return f"its weights are quantized ({method}); export the model that it was quantized from"
    for section in ("vision_config", "text_config"):
        values = config.get(section) or {}
        if not isinstance(values, dict):
            return f"{section} in config.json is not a JSON object; copy config.json from the base model"
        if wrong := [key for key in SIZES[section] if type(values.get(key, 0)) is not int]:
            return f"{section}.{wrong[0]} is {values[wrong[0]]!r} in config.json, not a number; write the model's"
        if problem := _sizes_problem(section, values):
            return problem
    if any(name in FAMILIES for name in names) or (not names and model_type == "blip"):
        return None
    if not names and "model_type" not in config:
        return f'config.json names no model; write the class of its tensors: "architectures": ["{next(iter(FAMILIES))}"]'
    if model_type in MODEL_TYPES and not any(name in CLASSES for name in names):
        return f"config.json names the class {names[0]}; if its tensors are those of {SUPPORTED}, write that class under architectures"
    kind = ", ".join(names) or f"model type {model_type!r}"
    what = next((CLASSES[name] for name in names if name in CLASSES), KINDS.get(model_type))
    return f"this is {kind}{f' ({what})' if what else ''}, which cannot be exported; export a {SUPPORTED}, such as {EXAMPLE}"


def _sizes_problem(section: str, values: Mapping[str, Any]) -> str | None:
    """Return which sizes of a section contradict each other, or None. A pair is compared if config.json has both."""
    for whole, part, relation, holds in DIVIDED:
        size, divisor = values.get(whole), values.get(part)
        if size is not None and divisor is not None and not (min(size, divisor) > 0 and holds(size, divisor)):
            return f"{section}.{whole} is {size} in config.json, and must be {relation} {part}, which is {divisor}; write the model's"
    return None


def refuse_dtypes(dtypes: Collection[str]) -> str | None:
    """Return why weights with these number formats cannot be exported, or None."""
    if quantized := next((dtype for dtype in dtypes if QUANTIZED_DTYPES.match(dtype)), None):
        return f"its weights are quantized ({quantized}); export the FP32, FP16 or BF16 weights that it was quantized from"
    return None


def refuse_names(names: Collection[str], own_parts: Collection[str] = ()) -> str | None:
    """Return why a checkpoint with tensors of these names cannot be exported, or None. `own_parts`: see `FamilyAdapter.own_parts`."""
    if name := next((name for name in names if any(part.startswith(PEFT_PARTS) for part in name.split("."))), None):
        return f"has tensors of a PEFT adapter that is not merged ({name}); call merge_and_unload() on it, and save the result"
    by_part = {part: name for name in names for part in name.split(".")}
    if part := next((part for part in by_part if part.startswith(QUANTIZED_PARTS)), None):
        return f"its weights are quantized (it has {by_part[part]}); export the model that it was quantized from"
    if part := next((part for part in FLAT_PARTS if part in by_part), None):
        return f"has the flat parameters of FSDP ({by_part[part]}); save the full state: StateDictType.FULL_STATE_DICT"
    if part := next((part for part in REPARAMETRIZED_PARTS if part in by_part), None):
        return f"has {by_part[part]}, from which a weight is computed; save it after {REPARAMETRIZED_PARTS[part]}"
    for mark, what in MARKS.items():
        if mark not in own_parts and (name := next((name for name in names if name.startswith(mark)), None)):
            cure = f"copy its own {CONFIG}, or export a {SUPPORTED}, such as {EXAMPLE}"
            return f"has the tensor {name}: this is {what}, not what {CONFIG} names; {cure}"
    return None


def task_of(config: Mapping[str, Any]) -> str:
    """Return the task of a config.json that `refuse_config` accepts."""
    architectures = config.get("architectures")
    names = architectures if isinstance(architectures, list) and architectures else [MODEL_TYPES.get(str(config.get("model_type")))]
    return next((TASKS[name] for name in names if name in TASKS), "caption")


def refuse_adapter(directory: Path) -> str | None:
    """Return what to do with a folder that lacks weights or config.json because it is a PEFT adapter, or None."""
    if not (directory / ADAPTER).is_file():
        return None
    try:
        base = json.loads((directory / ADAPTER).read_bytes())["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        base = None
    return (
        f"is a PEFT adapter{f' of {base}' if base else ''}, not a model; name its base model, and the adapter by --adapter: "
        f"toolkit export {base or 'BASE_MODEL'} --adapter {directory}"
    )


def refuse_source(source: str) -> str:
    """Return what to do with a source that is neither a folder, nor one file of weights, nor a hub id."""
    if match := re.match(r"https?://[^/]+/([^/]+/[^/?#]+)", source):
        return f"is an address; name the hub id: {match[1]}"
    if not Path(source).is_file():
        return "no such checkpoint folder, and not a hub id (owner/name)"
    return refuse_file(Path(source)) or f"is a file of another kind; name a folder, or weights in one file ({', '.join(SINGLE)})"


def refuse_file(path: Path) -> str | None:
    """Return what to do with a file that belongs to a checkpoint or contains one, or None."""
    if path.name == CONFIG:
        return f"is a file of a checkpoint; name its folder: {path.parent}"
    if path.name.endswith(ARCHIVES):
        return "is an archive; unpack it, and name the folder"
    if path.suffix in OTHER_WEIGHTS:
        return f"is in a format that is not read ({path.suffix}); {_resaved()}"
    return None


def is_weight_file(source: str) -> bool:
    """Return whether a source is one file of weights."""
    return Path(source).is_file() and source.endswith(SINGLE)


def refuse_folder(directory: Path) -> str | None:
    """Return what to do with a folder without config.json, or None."""
    if (directory / MANIFEST_NAME).is_file():
        return "is an artifact of this toolkit; name the checkpoint that it was exported from"
    inner = sorted(str(file.parent) for pattern in ("*", "snapshots/*") for file in directory.glob(f"{pattern}/{CONFIG}"))
    if inner:
        return f"has no {CONFIG}, and its subfolders have one; name {' or '.join(inner[:3])}"
    if (directory / CONFIG).is_symlink():
        return "has links to files that are missing; copy the files that the links of the original folder lead to (cp -L)"
    if problem := refuse_adapter(directory):
        return problem
    if weights := _weight_files(directory):
        return f"has no {CONFIG}; name {weights[0].name} in it, and by --like the folder or hub id of the model that was trained"
    return None


def refuse_both(directory: Path) -> str | None:
    """Return what to do with a folder that contains a model and a PEFT adapter, or None. transformers loads the adapter with its base."""
    if not (directory / ADAPTER).is_file():
        return None
    return f"contains a model and a PEFT adapter; add --adapter {directory} to merge it, or move {ADAPTER} away to leave it out"


def refuse_weights(directory: Path) -> str:
    """Return what to do with a folder that has no weights by a name that is read."""
    return refuse_adapter(directory) or refuse_formats(directory) or f"has neither {WEIGHTS} nor {PICKLES}; copy or download the weights"


def refuse_tokenizer(directory: Path) -> str | None:
    """Return what to do with a folder without a tokenizer, or None."""
    if any((directory / name).is_file() for name in TOKENIZERS):
        return None
    return f"has neither {' nor '.join(TOKENIZERS)}; copy the tokenizer of the base model"


def refuse_formats(directory: Path) -> str | None:
    """Return what to do with a folder whose weights have other names or formats, or None if it has none."""
    if (directory / "zero_to_fp32.py").is_file() or any(any(directory.glob(pattern)) for pattern in SPLIT_BY_DEEPSPEED):
        return "was saved by DeepSpeed in parts; run its zero_to_fp32.py, which writes pytorch_model.bin"
    if any(directory.glob("*/*.distcp")):
        return "was saved by FSDP in parts; merge them with `accelerate merge-weights`"
    files = _weight_files(directory)
    if any(SHARD.search(file.name) for file in files):
        index = f"{WEIGHTS if files[0].suffix == '.safetensors' else PICKLES}{INDEX}"
        return f"has shards, such as {files[0].name}, but no {index}; copy or download it, too"
    if files:
        return f"its weights are in {files[0].name}; name that file, and by --like the folder with its config.json and tokenizer"
    if other := next((file for file in sorted(directory.rglob("*")) if file.suffix in OTHER_WEIGHTS), None):
        return f"its weights are in {other.relative_to(directory)}, a format that is not read; {_resaved()}"
    return None


def _weight_files(directory: Path) -> list[Path]:
    """Return the files of a folder that may contain weights that are read if they are named."""
    return sorted(file for file in directory.iterdir() if is_weight_file(str(file)) and not file.name.startswith(TRAINING))


def _resaved() -> str:
    return "load it with transformers and save it with save_pretrained"
