"""Build a PyTorch artifact: one safetensors file of FP32, FP16 or INT8 weights.

The scales of an INT8 tensor are stored as `<name>.scales`. A tied table is stored once: the embedding uses the head's rows. If the
head is untied, the word embeddings are a layer of their own.
"""

import errno
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import safetensors
import safetensors.torch
from torch import nn

from exporters.checkpoint.checkpoint import Checkpoint
from exporters.recipe import Recipe
from runtimes.engines.pytorch.int8_layers import quantize_rows
from runtimes.engines.pytorch.session import SCALES

REQUIRES = {"torch": ">=2.10,<2.14"}


def build(
    checkpoint: Checkpoint, recipe: Recipe, directory: Path, calibration_images: Sequence[Path] = ()
) -> tuple[dict[str, Path], dict[str, dict[str, int]]]:
    """Quantize and write the weights of a checkpoint.

    Args:
        checkpoint: With the image scale of the recipe.
        recipe: A recipe of the runtime "torch".
        directory: Folder for the file.
        calibration_images: Not used: 8 bits are rounded to nearest.

    Returns:
        Role → file, and counts of what was quantized: component → kind of layer → count.

    Raises:
        OSError: The file cannot be written.
    """
    family, weights = checkpoint.family, checkpoint.load_weights()
    shared = family.head_tables if checkpoint.model.tied else {}
    for head in shared:
        del weights[head]
    linears = [name for name, module in checkpoint.empty_module().named_modules() if isinstance(module, nn.Linear)]
    applied: dict[str, Counter[str]] = {component: Counter() for component in family.components}
    half = recipe.precision == "fp16"
    stored = {name: tensor.half() if half else tensor for name, tensor in weights.items()}
    for module in linears:
        component = family.component_of(module)
        if not recipe.component(component).layer(family.layer_of(module)).quantized:
            continue
        parameter = f"{module}.weight"
        tensor = shared.get(parameter, parameter)
        stored[tensor], stored[tensor + SCALES] = quantize_rows(weights[tensor])
        applied[component]["Linear"] += 1
    for table, layer in checkpoint.tables.items():
        component = family.component_of(layer)
        if recipe.component(component).layer(layer).quantized:
            stored[table], stored[table + SCALES] = quantize_rows(weights[table])
            applied[component]["Embedding"] += 1
    path = directory / "weights.safetensors"
    try:
        safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in stored.items()}, path)
    except safetensors.SafetensorError as error:  # safetensors raises this if the disk is full
        raise OSError(errno.EIO, str(error)) from error
    return {"weights": path}, {component: dict(counts) for component, counts in applied.items()}
