"""Find the files of a checkpoint, in a folder or on the hub, and read config.json and the licence."""

import hashlib
import logging
from pathlib import Path
from typing import Any

from huggingface_hub import metadata_load, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from yaml import YAMLError

from exporters.checkpoint.refusals import CONFIG, is_weight_file, refuse_folder, refuse_source, refuse_weights
from exporters.checkpoint.tensor_files import read_tensors
from exporters.checkpoint.weight_files import PICKLES, WEIGHTS, find_shards, first_line, load_json
from runtimes.errors import CheckpointError
from runtimes.storage.blocks import read_blocks

logger = logging.getLogger(__name__)

RESUMES = 3
"""Times that a download is resumed after its connection broke off."""

CARD = "README.md"
DATA, PICKLED = ["*.json", "*.safetensors", "vocab.txt", CARD], ["*.bin"]
"""Patterns of the files to download from the hub: always, and if there is no safetensors file."""
SETTINGS = ["*.json", "vocab.txt"]
LOG_IN = "log in by `hf auth login` or HF_TOKEN"
NOT_CACHED = "it is not in the cache, and the hub cannot be reached; connect and try again, or give a folder"
HUB_PROBLEMS: tuple[tuple[type[Exception], str], ...] = (
    (GatedRepoError, f"its owner gives access on request; ask for it on the repository's page, then {LOG_IN}"),
    (RepositoryNotFoundError, f"the hub has no such repository, or it is private; correct the name, or {LOG_IN}"),
    (RevisionNotFoundError, "the repository has no such revision; --revision takes a branch, a tag or a commit"),
    (LocalEntryNotFoundError, NOT_CACHED),
    (OfflineModeIsEnabled, NOT_CACHED),
)
"""Error of a download → what is wrong and what to do; a subclass before its base class."""
CLASS_TOKENS = ("visual_encoder.cls_token", "vision_model.embeddings.class_embedding")
PUBLISHED = {768: "Salesforce/blip-image-captioning-base", 1024: "Salesforce/blip-image-captioning-large"}
"""Width of the vision encoder → captioner with the settings of the original authors."""


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
        raise CheckpointError(source, f"no such directory, and the download from the hub failed: {_hub_problem(error)}") from error
    if not any(file.suffix in (".safetensors", ".bin") for file in folder.iterdir()):
        raise CheckpointError(
            source, "its weights are not in the cache; connect to the hub and try again, or check that the repository has them"
        )
    return folder


def find_settings(file: Path, like: str | None) -> Path:
    """Return the folder whose config.json, tokenizer and image processor belong to weights in one file.

    Args:
        file: The weights.
        like: A directory or a hub id. None: the folder of the file, if it has a config.json, or else the published captioner that has the
            width of the file's vision encoder.

    Raises:
        CheckpointError: There is no such folder, the download fails, or no published captioner has this width.
    """
    if like is not None and Path(like).is_dir():
        return Path(like)
    if like is None and (file.parent / CONFIG).is_file():
        return file.parent
    if like is None:
        width = next((tensor.shape[-1] for name, tensor in read_tensors(file).items() if name.endswith(CLASS_TOKENS)), None)
        if width not in PUBLISHED:
            raise CheckpointError(str(file), "no published captioner has its sizes; name a folder with its config.json by --like")
        like = PUBLISHED[width]
    try:
        return Path(snapshot_download(like, allow_patterns=SETTINGS))
    except Exception as error:  # offline, unknown id, no access: huggingface_hub raises many kinds
        raise CheckpointError(
            str(file), f"cannot get the settings of {like}: {_hub_problem(error)}; or name a folder with its config.json by --like"
        ) from error


def _hub_problem(error: Exception) -> str:
    return next((problem for kind, problem in HUB_PROBLEMS if isinstance(error, kind)), first_line(error))


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
        config = load_json(directory / CONFIG)
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


def sha256_of_files(files: tuple[Path, ...], source: str) -> str:
    """Return the SHA-256, in hex, of the files' bytes in the given order.

    Raises:
        CheckpointError: A file cannot be read.
    """
    digest = hashlib.sha256()
    for file in files:
        try:
            with file.open("rb") as stream:
                for block in read_blocks(stream):
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
