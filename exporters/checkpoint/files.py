"""Find and read the files of a checkpoint.

Only data is read: safetensors, JSON, and pickles (`pytorch_model.bin`) through torch's weights-only loader, which runs no code of the file.
"""

import contextlib
import hashlib
import json
import logging
import pickle
import zipfile
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from huggingface_hub import metadata_load, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from yaml import YAMLError

from exporters.checkpoint.refusals import CONFIG, SINGLE, refuse_folder, refuse_source, refuse_weights
from exporters.checkpoint.weight_files import PICKLES, WEIGHTS, find_shards, first_line
from runtimes.errors import CheckpointError

logger = logging.getLogger(__name__)

RESUMES = 3
"""Times that a download is resumed after its connection broke off."""

LFS_POINTER = b"version https://git-lfs"

CARD = "README.md"
DATA, PICKLED = ["*.json", "*.safetensors", "vocab.txt", CARD], ["*.bin"]
"""Patterns of the files to download from the hub: always, and if there is no safetensors file."""
SETTINGS = ["*.json", "vocab.txt"]
CLASS_TOKENS = ("visual_encoder.cls_token", "vision_model.embeddings.class_embedding")
PUBLISHED = {768: "Salesforce/blip-image-captioning-base", 1024: "Salesforce/blip-image-captioning-large"}
"""Width of the vision encoder → captioner with the settings of the original authors."""
STATES = ("model", "state_dict", "model_state_dict", "module")
"""Keys under which training programs store the tensors, beside the state of the optimizer."""


def find_folder(source: str, revision: str | None, *, safetensors_only: bool) -> Path:
    """Return the folder of a checkpoint: the directory itself, or the downloaded snapshot of a hub id.

    Args:
        source: A directory or a hub id.
        revision: Commit, tag or branch of a hub id; None for the default branch.
        safetensors_only: Never download `*.bin` files.

    Raises:
        CheckpointError: The directory does not exist, the download fails, or `revision` is given for a directory.
    """
    if Path(source).is_dir():
        if revision is not None:
            raise CheckpointError(source, "--revision is for hub ids, this is a directory")
        return Path(source)
    if source.count("/") != 1 or source.startswith((".", "/", "~")) or Path(source).exists():
        raise CheckpointError(source, refuse_source(source))
    try:
        folder = _download(source, revision, DATA)
        if not safetensors_only and not find_shards(folder, WEIGHTS, source):
            folder = _download(source, revision, DATA + PICKLED)
    except CheckpointError:
        raise
    except Exception as error:  # offline, unknown id, no access: huggingface_hub raises many kinds
        raise CheckpointError(source, f"no such directory, and the download from the hub failed: {first_line(error)}") from error
    if not any(file.suffix in (".safetensors", ".bin") for file in folder.iterdir()):
        raise CheckpointError(
            source, "its weights are not in the cache; connect to the hub and try again, or check that the repository has them"
        )
    return folder


def is_weight_file(source: str) -> bool:
    """Return whether a source is one file of weights."""
    return Path(source).is_file() and Path(source).suffix in SINGLE


def find_settings(file: Path, like: str | None) -> Path:
    """Return the folder whose config.json, tokenizer and image processor belong to weights in one file.

    Args:
        file: The weights.
        like: A directory or a hub id. None: the published captioner that has the width of the file's vision encoder.

    Raises:
        CheckpointError: There is no such folder, the download fails, or no published captioner has this width.
    """
    if like is not None and Path(like).is_dir():
        return Path(like)
    if like is None:
        width = next((tensor.shape[-1] for name, tensor in read_tensors(file).items() if name.endswith(CLASS_TOKENS)), None)
        if width not in PUBLISHED:
            raise CheckpointError(str(file), "no published captioner has its sizes; name a folder with its config.json by --like")
        like = PUBLISHED[width]
    try:
        return Path(snapshot_download(like, allow_patterns=SETTINGS))
    except Exception as error:  # offline, unknown id, no access: huggingface_hub raises many kinds
        raise CheckpointError(
            str(file), f"cannot get the settings of {like}: {first_line(error)}; name a folder with its config.json by --like"
        ) from error


def _download(source: str, revision: str | None, patterns: list[str]) -> Path:
    """Download a snapshot. If a connection breaks off, the download is resumed, at most `RESUMES` times."""
    for _ in range(RESUMES):
        try:
            return Path(snapshot_download(source, revision=revision, allow_patterns=patterns))
        except (HfHubHTTPError, LocalEntryNotFoundError, ValueError):
            raise
        except OSError as error:
            logger.warning("%s: %s; resuming the download", source, first_line(error))
    return Path(snapshot_download(source, revision=revision, allow_patterns=patterns))


def read_config(directory: Path, source: str) -> dict[str, Any]:
    """Read config.json.

    Raises:
        CheckpointError: The file cannot be read, or is not a JSON object.
    """
    if not (directory / CONFIG).is_file() and (problem := refuse_folder(directory)):
        raise CheckpointError(source, problem)
    try:
        config = json.loads((directory / CONFIG).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        cure = "give a folder in Hugging Face's layout" if isinstance(error, OSError) else "correct it, or copy it from the base model"
        raise CheckpointError(source, f"cannot read {CONFIG}: {first_line(error)}; {cure}") from error
    if not isinstance(config, dict):
        raise CheckpointError(source, f"cannot read {CONFIG}: it is not a JSON object")
    return config


def find_weight_files(directory: Path, source: str, *, safetensors_only: bool) -> tuple[Path, ...]:
    """Return the files of the weights: safetensors, or else `pytorch_model.bin`; each is one file or shards.

    Raises:
        CheckpointError: The directory has no weights, or only pickles and `safetensors_only` is true.
    """
    if is_weight_file(source):
        files: tuple[Path, ...] = (Path(source),)
    elif files := find_shards(directory, WEIGHTS, source):
        return files
    else:
        files = find_shards(directory, PICKLES, source)
    if not files:
        raise CheckpointError(source, refuse_weights(directory))
    if files[0].suffix == ".safetensors":
        return files
    if safetensors_only:
        raise CheckpointError(
            source, f"has no {WEIGHTS}, only {files[0].name}, which --safetensors-only refuses; convert it, or leave the option out"
        )
    logger.warning("%s has no %s: reading %s with torch's weights-only loader, which runs no code", source, WEIGHTS, files[0].name)
    return files


def read_tensors(file: Path) -> Mapping[str, torch.Tensor]:
    """Read one weight file and return name → tensor, in the file's own dtypes.

    Raises:
        CheckpointError: The file is damaged, is a pointer of Git LFS, or contains something other than named tensors.
    """
    try:
        _refuse_pointer(file)
        loaded = safetensors.torch.load_file(file) if file.suffix == ".safetensors" else _read_pickle(file)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        if "Unsupported global" not in str(error):  # torch's text for damaged files has several lines and escape sequences
            raise CheckpointError(str(file), "damaged or unreadable: it is no pickle of tensors; copy or download it again") from error
        raise CheckpointError(
            str(file),
            "contains Python objects besides tensors, which may run code; save the tensors alone: torch.save(model.state_dict(), FILE)",
        ) from error
    except Exception as error:  # damaged files raise exceptions of many classes
        raise CheckpointError(str(file), f"damaged or unreadable: {first_line(error)}; copy or download it again") from error
    if not isinstance(loaded, dict) or not all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in loaded.items()):
        raise CheckpointError(str(file), "contains something other than named tensors")
    return loaded


def _read_pickle(file: Path) -> Any:  # noqa: ANN401 - what the pickle contains
    """Read a pickle with torch's weights-only loader; files since torch 1.6 are mapped, so that unused tensors take no memory."""
    loaded = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    return next((loaded[key] for key in STATES if isinstance(loaded, dict) and isinstance(loaded.get(key), dict)), loaded)


def is_tied(files: Sequence[Path], head_tables: Mapping[str, str], prefix: str = "") -> bool:
    """Return whether every head has the values of its word embeddings, or is not stored.

    Args:
        files: Weight files.
        head_tables: Name of a head → name of its word embeddings.
        prefix: Prefix of the names in the files.

    Raises:
        CheckpointError: A file is damaged.
    """
    stored = {f"{prefix}{head}": f"{prefix}{table}" for head, table in head_tables.items()}
    tensors = {name: tensor for file in files for name, tensor in _selected(file, {*stored, *stored.values()}).items()}
    pairs = [(tensors[head], tensors[table]) for head, table in stored.items() if head in tensors and table in tensors]
    return all(torch.equal(head, table) for head, table in pairs)


def tensor_names(files: Sequence[Path]) -> list[str]:
    """Return the names of the tensors in weight files; raise CheckpointError if a file is damaged."""
    names: list[str] = []
    for file in files:
        if file.suffix != ".safetensors":
            names += read_tensors(file)
        else:
            with _opened(file) as tensors:
                names += tensors.keys()
    return names


def _selected(file: Path, names: Set[str]) -> dict[str, torch.Tensor]:
    """Read the tensors of a file that have one of the names."""
    if file.suffix != ".safetensors":
        return {name: tensor for name, tensor in read_tensors(file).items() if name in names}
    with _opened(file) as tensors:
        return {name: tensors.get_tensor(name) for name in tensors.keys() if name in names}  # noqa: SIM118 - not a dict


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """Open a safetensors file; raise CheckpointError if it is damaged or is a pointer of Git LFS."""
    _refuse_pointer(file)
    try:
        with safetensors.safe_open(file, framework="pt") as tensors:
            yield tensors
    except Exception as error:  # damaged files raise exceptions of many classes
        raise CheckpointError(str(file), f"damaged or unreadable: {first_line(error)}; copy or download it again") from error


def _refuse_pointer(file: Path) -> None:
    """Raise CheckpointError if a file is what Git LFS leaves in place of one that was not downloaded."""
    with file.open("rb") as stream:
        if stream.read(len(LFS_POINTER)) == LFS_POINTER:
            raise CheckpointError(str(file), "is a pointer of Git LFS, not the weights; run `git lfs pull` in its folder")


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
    """Return the licence of the model card (README.md), or None if there is no card, it names no licence or its metadata cannot be read."""
    try:
        licence = (metadata_load(directory / CARD) or {}).get("license")
    except (OSError, ValueError, ArithmeticError, RecursionError, YAMLError):  # a licence is optional
        return None
    return licence if isinstance(licence, str) else None
