"""Read the tensors of weight files.

Only data is read: safetensors, and pickles (`pytorch_model.bin`) through torch's weights-only loader, which runs no code of the file.
"""

import contextlib
import pickle
import zipfile
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from exporters.checkpoint.weight_files import first_line, plain_name
from runtimes.errors import CheckpointError

LFS_POINTER = b"version https://git-lfs"
STATES = ("model", "state_dict", "model_state_dict", "module")
"""Keys under which training programs store the tensors, beside the state of the optimizer."""


def read_tensors(file: Path) -> Mapping[str, torch.Tensor]:
    """Read one weight file and return name, without wrappers' parts → tensor, in the file's own dtypes.

    Raises:
        CheckpointError: The file is damaged, is a pointer of Git LFS, or contains something other than named tensors.
    """
    return {plain_name(name): tensor for name, tensor in _read_stored(file).items()}


def _read_stored(file: Path) -> Mapping[str, torch.Tensor]:
    """Read one weight file; see `read_tensors`. Names are as stored."""
    with _errors_named(file):
        loaded = safetensors.torch.load_file(file) if file.suffix == ".safetensors" else _read_pickle(file)
    if not isinstance(loaded, dict) or not all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in loaded.items()):
        raise CheckpointError(str(file), "contains something other than named tensors")
    return loaded


@contextlib.contextmanager
def _errors_named(file: Path) -> Iterator[None]:
    """Raise CheckpointError if a file is a pointer of Git LFS, or if reading it fails."""
    try:
        _refuse_pointer(file)
        yield
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


def _read_pickle(file: Path) -> Any:  # noqa: ANN401 - what the pickle contains
    loaded = _load_pickle(file)
    key = _state_key(loaded)
    return loaded if key is None else loaded[key]


def _load_pickle(file: Path) -> Any:  # noqa: ANN401 - what the pickle contains
    """Load a pickle with torch's weights-only loader; files since torch 1.6 are mapped, so that unused tensors take no memory."""
    return torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))


def _state_key(loaded: object) -> str | None:
    return next((key for key in STATES if isinstance(loaded, dict) and isinstance(loaded.get(key), dict)), None)


def other_states(file: Path) -> tuple[str, ...]:
    """Return the keys of a pickle under which other states of a model are, such as an average of the weights. `read_tensors` ignores these.

    Raises:
        CheckpointError: See `read_tensors`.
    """
    if file.suffix == ".safetensors":
        return ()
    with _errors_named(file):
        loaded = _load_pickle(file)
    key = _state_key(loaded)
    return () if key is None else tuple(str(other) for other, value in loaded.items() if other != key and _is_state(value))


def _is_state(value: object) -> bool:
    return isinstance(value, dict) and bool(value) and all(isinstance(each, torch.Tensor) for each in value.values())


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


def row_counts(files: Sequence[Path], names: Set[str]) -> dict[str, int]:
    """Return name → number of rows of the tensors that have one of the names; raise CheckpointError if a file is damaged."""
    return {name: len(tensor) for file in files for name, tensor in _selected(file, names).items() if tensor.ndim}


def tensor_names(files: Sequence[Path]) -> list[str]:
    """Return the names of the tensors in weight files, as stored; raise CheckpointError if a file is damaged."""
    names: list[str] = []
    for file in files:
        if file.suffix != ".safetensors":
            names += _read_stored(file)
        else:
            with _opened(file) as tensors:
                names += tensors.keys()
    return names


def _selected(file: Path, names: Set[str]) -> dict[str, torch.Tensor]:
    """Read the tensors of a file that have one of the names."""
    if file.suffix != ".safetensors":
        return {name: tensor for name, tensor in read_tensors(file).items() if name in names}
    with _opened(file) as tensors:
        return {plain_name(name): tensors.get_tensor(name) for name in tensors.keys() if plain_name(name) in names}  # noqa: SIM118 - not a dict


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """Open a safetensors file; raise CheckpointError if it is damaged or is a pointer of Git LFS."""
    with _errors_named(file), safetensors.safe_open(file, framework="pt") as tensors:
        yield tensors


def _refuse_pointer(file: Path) -> None:
    """Raise CheckpointError if a file is what Git LFS leaves in place of one that was not downloaded."""
    with file.open("rb") as stream:
        if stream.read(len(LFS_POINTER)) == LFS_POINTER:
            raise CheckpointError(str(file), "is a pointer of Git LFS, not the weights; run `git lfs pull` in its folder")
