"""Describe weight files: number of parameters, dtypes, and whether the head is tied.

Of safetensors, only headers and the two tables are read, without torch. Pickles are read by torch's weights-only loader, if it is
installed.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from exporters.checkpoint.weight_files import find_prefix, plain_name
from runtimes.errors import CheckpointError
from runtimes.storage.blocks import read_blocks

TABLE = "text_decoder.bert.embeddings.word_embeddings.weight"
HEAD = "text_decoder.cls.predictions.decoder.weight"
ENCODER_TABLE = "text_encoder.embeddings.word_embeddings.weight"
KNOWN = (TABLE, HEAD, ENCODER_TABLE)
"""Names of tensors before which a training wrapper may have put a prefix."""
DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64", "int64": "I64", "int8": "I8"}
"""Name of a dtype in torch → in safetensors."""
MAX_HEADER_BYTES = 1 << 24


@dataclass(frozen=True, kw_only=True)
class WeightSummary:
    """The tensors of weight files."""

    stored: tuple[str, ...] = ()
    """Names of the tensors in the files."""
    names: tuple[str, ...] = ()
    """Names of the tensors, without a common prefix and the parts of wrappers."""
    prefix: str = ""
    beside: tuple[str, ...] = ()
    """Names of the tensors that do not have the prefix."""
    dtypes: Mapping[str, int]
    """Dtype → number of parameters."""
    tied: bool | None = None
    """Whether the head and the word embeddings are the same tensor; None if unknown."""
    table_rows: int | None = None
    """Number of rows of the word embeddings; None without them."""


def summarize_weights(files: Sequence[Path]) -> WeightSummary:
    """Describe the tensors of files.

    Raises:
        CheckpointError: A file is damaged.
    """
    if all(file.suffix == ".safetensors" for file in files):
        return _headers(files)
    try:
        from exporters.checkpoint.tensor_files import is_tied, read_tensors, row_counts, tensor_names
    except ModuleNotFoundError:  # a device without torch
        return WeightSummary(dtypes={})
    dtypes: dict[str, int] = {}
    names: list[str] = []
    for file in files:
        for name, tensor in read_tensors(file).items():
            dtype = str(tensor.dtype).removeprefix("torch.")
            dtypes[DTYPES.get(dtype, dtype)] = dtypes.get(DTYPES.get(dtype, dtype), 0) + tensor.numel()
            names.append(name)
    prefix = find_prefix(names, KNOWN, str(files[0]))
    tied = is_tied(files, {HEAD: TABLE}, prefix) if f"{prefix}{TABLE}" in names else None
    beside = tuple(name for name in names if not name.startswith(prefix))
    own = tuple(name.removeprefix(prefix) for name in names if name.startswith(prefix))
    rows = row_counts(files, {f"{prefix}{TABLE}"}).get(f"{prefix}{TABLE}")
    stored = tuple(tensor_names(files))
    return WeightSummary(stored=stored, names=own, prefix=prefix, beside=beside, dtypes=dtypes, tied=tied, table_rows=rows)


def other_states(file: Path) -> tuple[str, ...]:
    """See `exporters.checkpoint.tensor_files.other_states`."""
    from exporters.checkpoint.tensor_files import other_states as states

    return states(file)


def _headers(files: Sequence[Path]) -> WeightSummary:
    stored = {name: (file, entry) for file in files for name, entry in _header(file).items()}
    dtypes: dict[str, int] = {}
    for name, (file, entry) in stored.items():
        try:
            dtypes[entry["dtype"]] = dtypes.get(entry["dtype"], 0) + math.prod(entry["shape"])
        except (KeyError, TypeError) as error:
            raise CheckpointError(str(file), f"its header has no dtype or shape for {name}") from error
    tensors = {plain_name(name): entry for name, entry in stored.items()}
    prefix = find_prefix(list(tensors), KNOWN, str(files[0])) if tensors else ""
    beside = tuple(name for name in tensors if not name.startswith(prefix))
    tensors = {name.removeprefix(prefix): entry for name, entry in tensors.items() if name.startswith(prefix)}
    rows = next(iter(tensors[TABLE][1]["shape"]), None) if TABLE in tensors else None
    return WeightSummary(
        stored=tuple(stored), names=tuple(tensors), prefix=prefix, beside=beside, dtypes=dtypes, tied=_tied(tensors), table_rows=rows
    )


def _header(file: Path) -> dict[str, Any]:
    """Read a safetensors header (8 bytes of length, then JSON); return tensor name → dtype, shape, data_offsets, start of the data."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > MAX_HEADER_BYTES:
                raise CheckpointError(str(file), f"its header claims {length:,} bytes")
            entries = json.loads(stream.read(length))
            entries.pop("__metadata__", None)
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(str(file), "is not a safetensors file") from error
    return {name: {**entry, "start": 8 + length} for name, entry in entries.items() if isinstance(entry, dict)}


def _tied(tensors: Mapping[str, tuple[Path, Mapping[str, Any]]]) -> bool | None:
    """Return whether the head is the word embeddings: it is not stored, or its stored bytes are the same. None without word embeddings."""
    if TABLE not in tensors:
        return None
    if HEAD not in tensors:
        return True
    (_, table), (_, head) = tensors[TABLE], tensors[HEAD]
    if (table["dtype"], table["shape"]) != (head["dtype"], head["shape"]):
        return False
    return all(a == b for a, b in zip_longest(_blocks(*tensors[TABLE]), _blocks(*tensors[HEAD])))


def _blocks(file: Path, entry: Mapping[str, Any]) -> Iterator[bytes]:
    """Yield the bytes of a tensor in blocks."""
    try:
        begin, end = entry["data_offsets"]
        with file.open("rb") as stream:
            stream.seek(entry["start"] + begin)
            yield from read_blocks(stream, end - begin)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(str(file), "its header has wrong data_offsets") from error
