"""The files of a checkpoint: where they are and what is in them.

Only data is read: safetensors, JSON, and a `.bin` through torch's weights-only loader when the user allows it.
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

from runtimes.errors import CheckpointError

CONFIG, CARD = "config.json", "README.md"
WEIGHTS, SHARDS, BIN = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"


def find_folder(source: str, revision: str | None, *, allow_bin: bool) -> Path:
    """Return the folder of a checkpoint: the directory itself, or the snapshot of a hub id."""
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
        raise CheckpointError(source, f"no such directory, and it cannot be had from the hub: {line_of(error)}") from error


def read_config(directory: Path, source: str) -> dict[str, Any]:
    """Return config.json as JSON values."""
    try:
        config = json.loads((directory / CONFIG).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(source, f"cannot read {CONFIG}: {line_of(error)}") from error
    if not isinstance(config, dict):
        raise CheckpointError(source, f"cannot read {CONFIG}: it is no JSON object")
    return config


def weight_files(directory: Path, source: str, *, allow_bin: bool) -> tuple[Path, ...]:
    """Return the files that hold the weights."""
    if (directory / WEIGHTS).is_file():
        return (directory / WEIGHTS,)
    if (directory / SHARDS).is_file():
        try:
            names = sorted(set(json.loads((directory / SHARDS).read_bytes())["weight_map"].values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(source, f"cannot read {SHARDS}: {line_of(error)}") from error
        if any(Path(str(name)).name != name or not (directory / name).is_file() for name in names):
            raise CheckpointError(source, f"{SHARDS} names files that are not beside it")
        return tuple(directory / name for name in names)
    if (directory / BIN).is_file():
        if allow_bin:
            return (directory / BIN,)
        raise CheckpointError(source, f"has no {WEIGHTS}, only {BIN}, which is a pickle; read it with --allow-bin if you trust its origin")
    raise CheckpointError(source, f"has no {WEIGHTS}")


def read_tensors(file: Path) -> Mapping[str, torch.Tensor]:
    """Return name → tensor of one weight file."""
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True) if file.suffix == ".bin" else safetensors.torch.load_file(file)
    except Exception as error:  # a damaged file raises nearly anything
        raise CheckpointError(str(file), f"damaged or unreadable: {line_of(error)}") from error
    if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise CheckpointError(str(file), "holds something else than named tensors")
    return loaded


def sha256_of_files(files: tuple[Path, ...], source: str) -> str:
    """Hash the weight files, one after the other."""
    digest = hashlib.sha256()
    for file in files:
        try:
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        except OSError as error:
            raise CheckpointError(source, f"cannot read {file.name}: {line_of(error)}") from error
    return digest.hexdigest()


def licence(directory: Path) -> str | None:
    """Return the licence that the model card states, or None."""
    try:
        stated = ModelCard((directory / CARD).read_text(encoding="utf-8", errors="replace")).data.get("license")
    except Exception:  # no card, or front matter that is no YAML
        return None
    return stated if isinstance(stated, str) else None


def line_of(error: BaseException) -> str:
    """First line of an error's text, or its kind where it has none."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
