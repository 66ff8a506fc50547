"""Write a fine-tuned checkpoint in Hugging Face's layout: the original's other files, with new weights and a record of the run."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from exporters.checkpoint.checkpoint import Checkpoint
from exporters.checkpoint.refusals import CONFIG
from exporters.checkpoint.weight_files import INDEX, WEIGHTS
from runtimes.errors import OutputError, OutputExistsError
from runtimes.storage.atomic_write import set_mode, sync_folder, working_folder

RECORD = "finetune.json"
"""File with the settings and results of the run."""
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".ckpt", ".h5", ".msgpack", ".gguf", ".onnx", INDEX)
DTYPES = ("torch_dtype", "dtype")
"""Keys of config.json for the type of the weights."""


def check_output(output: Path) -> None:
    """Raise OutputExistsError if a folder exists."""
    if output.exists():
        raise OutputExistsError(output, "Name another folder by --output; fine-tuning never replaces one.")


def write_checkpoint(checkpoint: Checkpoint, weights: Mapping[str, Tensor], record: Mapping[str, Any], output: Path) -> None:
    """Write a checkpoint; the folder appears when it is complete.

    Args:
        checkpoint: The original.
        weights: All weights f32 by the names of the family's module. A tied head has the values of its word embeddings.
        record: Settings and results of the run, as JSON values.
        output: The folder, which must not exist.

    Raises:
        OutputExistsError: The folder exists.
        OutputError: The folder cannot be written.
    """
    check_output(output)
    with working_folder(output.parent, f".{output.name}.writing-") as working:
        folder = working / output.name
        folder.mkdir()
        for file in sorted(checkpoint.directory.iterdir()):
            if file.is_file() and not file.name.endswith(WEIGHT_SUFFIXES) and not file.name.startswith("."):
                shutil.copyfile(file, folder / file.name)
        config = json.loads((folder / CONFIG).read_bytes())
        for key in DTYPES:
            if key in config:
                config[key] = "float32"
        (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        tied = checkpoint.family.head_tables if checkpoint.model.tied else {}
        saved = checkpoint.family.saved_weights(weights)
        stored = {name: tensor.contiguous().clone() for name, tensor in saved.items() if name not in tied}
        safetensors.torch.save_file(stored, folder / WEIGHTS, metadata={"format": "pt"})
        set_mode(folder / WEIGHTS, 0o644)  # safetensors creates private files
        try:
            folder.rename(output)
        except OSError as error:
            raise OutputError(output, error.strerror or str(error)) from error
        sync_folder(output.parent)
