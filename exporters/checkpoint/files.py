"""Find and read the files of a checkpoint.

Only data formats are read: safetensors and JSON. A `.bin` file is a pickle: it needs the user's permission, and torch's weights-only
loader reads it.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from huggingface_hub import ModelCard, snapshot_download

from exporters.checkpoint.weight_files import WEIGHTS, find_safetensors, first_line
from runtimes.errors import CheckpointError

CONFIG, CARD, BIN = "config.json", "README.md", "pytorch_model.bin"


def find_folder(source: str, revision: str | None, *, allow_bin: bool) -> Path:
    """Return the folder of a checkpoint: the directory itself, or the downloaded snapshot of a hub id.

    Args:
        source: A directory or a hub id.
        revision: Commit, tag or branch of a hub id; None for the default branch.
        allow_bin: Also download `*.bin` files.

    Raises:
        CheckpointError: The directory does not exist, the download fails, or `revision` is given for a directory.
    """
    if Path(source).is_dir():
        if revision is not None:
            raise CheckpointError(source, "--revision is for hub ids, this is a directory")
        return Path(source)
    if source.count("/") != 1 or source.startswith((".", "/", "~")) or Path(source).exists():
        raise CheckpointError(source, "no such checkpoint directory")
    patterns = ["*.json", "*.safetensors", "vocab.txt", CARD] + (["*.bin"] if allow_bin else [])
    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=patterns))
    except Exception as error:  # offline, unknown id, no access: huggingface_hub raises many kinds
        raise CheckpointError(source, f"no such directory, and the download from the hub failed: {first_line(error)}") from error


def read_config(directory: Path, source: str) -> dict[str, Any]:
    """Read config.json.

    Raises:
        CheckpointError: The file cannot be read, or is not a JSON object.
    """
    try:
        config = json.loads((directory / CONFIG).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(source, f"cannot read {CONFIG}: {first_line(error)}") from error
    if not isinstance(config, dict):
        raise CheckpointError(source, f"cannot read {CONFIG}: it is not a JSON object")
    return config


def find_weight_files(directory: Path, source: str, *, allow_bin: bool) -> tuple[Path, ...]:
    """Return the files of the weights: safetensors, or else `pytorch_model.bin` if `allow_bin` is true.

    Raises:
        CheckpointError: The directory has no weights, or only a `pytorch_model.bin` that is not allowed.
    """
    if files := find_safetensors(directory, source):
        return files
    if (directory / BIN).is_file():
        if allow_bin:
            return (directory / BIN,)
        raise CheckpointError(source, f"has no {WEIGHTS}, only {BIN}, which is a pickle; read it with --allow-bin if you trust its origin")
    raise CheckpointError(source, f"has no {WEIGHTS}")


def read_tensors(file: Path) -> Mapping[str, torch.Tensor]:
    """Read one weight file and return name → tensor, in the file's own dtypes.

    Raises:
        CheckpointError: The file is damaged, or contains something other than named tensors.
    """
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True) if file.suffix == ".bin" else safetensors.torch.load_file(file)
    except Exception as error:  # damaged files raise exceptions of many classes
        raise CheckpointError(str(file), f"damaged or unreadable: {first_line(error)}") from error
    if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise CheckpointError(str(file), "contains something other than named tensors")
    return loaded


def sha256_of_files(files: tuple[Path, ...], source: str) -> str:
    """Return the SHA-256, in hex, of the files' bytes in the given order.

    Raises:
        CheckpointError: A file cannot be read.
    """
    digest = hashlib.sha256()
    for file in files:
        try:
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        except OSError as error:
            raise CheckpointError(source, f"cannot read {file.name}: {first_line(error)}") from error
    return digest.hexdigest()


def read_licence(directory: Path) -> str | None:
    """Return the licence of the model card (README.md), or None if there is no card or it names no licence."""
    try:
        licence = ModelCard((directory / CARD).read_text(encoding="utf-8", errors="replace")).data.get("license")
    except Exception:  # no card, or its front matter is not YAML
        return None
    return licence if isinstance(licence, str) else None
