"""Name what a checkpoint is if it cannot be exported, and what to do; without torch or transformers."""

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from exporters.checkpoint.weight_files import PICKLES, WEIGHTS
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
}
"""Architecture of config.json → what it is."""
MARKS = {
    "qformer.": "BLIP-2 or InstructBLIP",
    "language_model.": "BLIP-2 or InstructBLIP",
    "itm_head.": "BLIP that compares images with texts",
    "text_encoder.": "BLIP that answers questions, compares images with texts, or was only pre-trained",
    "text_model.": CLASSES["BlipModel"],
}
"""Start of a tensor's name → what the checkpoint is, although config.json does not name it."""
PEFT_PARTS = ("lora_", "base_layer", "modules_to_save", "original_module", "hada_w", "lokr_w", "oft_r", "ia3_l")
"""Starts of parts of the names that PEFT gives to tensors of adapters."""
SINGLE = (".pth", ".pt", ".ckpt", ".bin", ".safetensors")
"""Suffixes of weights in one file, which `toolkit export` reads if it is named."""
OTHER_WEIGHTS = (".h5", ".msgpack", ".gguf", ".onnx")


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
    if any(name in FAMILIES for name in names) or (not names and model_type == "blip"):
        return None
    kind = ", ".join(names) or f"model type {model_type!r}"
    what = next((CLASSES[name] for name in names if name in CLASSES), KINDS.get(model_type))
    return f"this is {kind}{f' ({what})' if what else ''}, which cannot be exported; export a {SUPPORTED}, such as {EXAMPLE}"


def refuse_names(names: Collection[str], own_parts: Collection[str] = ()) -> str | None:
    """Return why a checkpoint with tensors of these names cannot be exported, or None. `own_parts`: see `FamilyAdapter.own_parts`."""
    if name := next((name for name in names if any(part.startswith(PEFT_PARTS) for part in name.split("."))), None):
        return f"has tensors of a PEFT adapter that is not merged ({name}); call merge_and_unload() on it, and save the result"
    for mark, what in MARKS.items():
        if mark not in own_parts and (name := next((name for name in names if name.startswith(mark)), None)):
            return f"has the tensor {name}: this is {what}, not what config.json names; export a {SUPPORTED}, such as {EXAMPLE}"
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
    if Path(source).is_file():
        return f"is a file of another kind; name a folder, or weights in one file ({', '.join(SINGLE)}), and unpack an archive first"
    return "no such checkpoint folder, and not a hub id (owner/name)"


def refuse_folder(directory: Path) -> str | None:
    """Return what to do with a folder without config.json, or None."""
    if (directory / MANIFEST_NAME).is_file():
        return "is an artifact of this toolkit; name the checkpoint that it was exported from"
    inner = sorted(str(file.parent) for pattern in ("*", "snapshots/*") for file in directory.glob(f"{pattern}/{CONFIG}"))
    if inner:
        return f"has no {CONFIG}, and its subfolders have one; name {' or '.join(inner[:3])}"
    return refuse_adapter(directory)


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
    if (directory / "zero_to_fp32.py").is_file() or any(directory.glob("global_step*")):
        return "was saved by DeepSpeed in parts; run its zero_to_fp32.py, which writes pytorch_model.bin"
    if any(directory.glob("*/*.distcp")):
        return "was saved by FSDP in parts; merge them with `accelerate merge-weights`"
    files = sorted(file for file in directory.iterdir() if file.is_file() and file.suffix in (*SINGLE, *OTHER_WEIGHTS))
    if single := next((file.name for file in files if file.suffix in SINGLE), None):
        return f"its weights are in {single}; name that file, and by --like the folder with its config.json and tokenizer"
    if files:
        return f"its weights are in {files[0].name}, a format that is not read; load it with transformers and save it with save_pretrained"
    return None
