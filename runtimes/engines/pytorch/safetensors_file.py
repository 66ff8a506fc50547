"""Read a safetensors file tensor by tensor: an open file goes in, torch tensors of their own memory come out.

The library maps the whole file, and pages that were touched count as this process' memory until the mapping goes: 231 MB more at the peak
of BLIP-base INT8. Here only the tensor that is asked for is read. The header is bounded and checked before any tensor is made.
Format: 8 bytes little-endian length, JSON of name → dtype, shape, data_offsets, then the data without gaps.
"""

import json
import math
import os
from io import BufferedReader
from typing import Any

import torch
from torch import Tensor

MAX_HEADER_BYTES = 1 << 20
DTYPES = {"F32": torch.float32, "F16": torch.float16, "I8": torch.int8}
"""What our artifacts hold."""


class TensorFile:
    """An open safetensors file, which the caller closes.

    Raises:
        ValueError: At once, the header is not what the format says; on reading, the file has become shorter.
    """

    def __init__(self, stream: BufferedReader) -> None:
        self._stream = stream
        try:
            self._entries, self._start = _header(stream)
            self._check(os.fstat(stream.fileno()).st_size - self._start)
        except (AttributeError, KeyError, IndexError, TypeError, RecursionError) as error:
            raise ValueError("its header is not that of a safetensors file") from error

    def names(self) -> list[str]:
        """Return all tensors' names in the order of their data."""
        return sorted(self._entries, key=lambda name: int(self._entries[name]["data_offsets"][0]))

    def read(self, name: str) -> Tensor:
        """Return one tensor."""
        entry = self._entries[name]
        tensor = torch.empty(entry["shape"], dtype=DTYPES[entry["dtype"]])
        self._stream.seek(self._start + entry["data_offsets"][0])
        if self._stream.readinto(tensor.reshape(-1).view(torch.uint8).numpy().data) != tensor.nbytes:
            raise ValueError(f"it ends within {name}")
        return tensor

    def _check(self, data_bytes: int) -> None:
        """Every tensor's extent must fit its dtype and shape, and together they must fill the file without gaps."""
        end = 0
        for name in self.names():
            entry = self._entries[name]
            begin, stop = entry["data_offsets"]
            if entry["dtype"] not in DTYPES:
                raise ValueError(f"{name} is of type {entry['dtype']}")
            if {type(begin), type(stop)} != {int}:
                raise ValueError(f"{name} has offsets that are no whole numbers")
            if any(type(size) is not int or not 0 <= size <= data_bytes for size in entry["shape"]):
                raise ValueError(f"{name} has shape {entry['shape']}")
            if begin != end or stop - begin != math.prod(entry["shape"]) * DTYPES[entry["dtype"]].itemsize:
                raise ValueError(f"{name} does not fit its place")
            end = stop
        if end != data_bytes:
            raise ValueError(f"it holds {data_bytes} bytes of data, its header says {end}")


def _header(stream: BufferedReader) -> tuple[dict[str, Any], int]:
    """Read the header; return its entries and where the data starts."""
    length = int.from_bytes(stream.read(8), "little")
    if length > MAX_HEADER_BYTES:
        raise ValueError(f"its header claims {length} bytes, more than {MAX_HEADER_BYTES}")
    entries = json.loads(stream.read(length), object_pairs_hook=_no_twins)
    entries.pop("__metadata__", None)
    return entries, 8 + length


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a name that stands twice, where the last one would silently win."""
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a name stands twice in its header")
    return dict(pairs)
