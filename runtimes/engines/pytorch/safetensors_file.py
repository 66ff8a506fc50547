"""Read a safetensors file tensor by tensor.

The safetensors library memory-maps the whole file. Mapped pages count as memory of the process until the mapping ends: 231 MB more at the
peak of BLIP-base INT8. This reader copies one tensor at a time. It checks the header, whose size is limited, before it makes a tensor.

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
"""Element types in artifacts of this toolkit."""


class TensorFile:
    """Reader of an open safetensors file. The caller closes the file.

    Raises:
        ValueError: The header is damaged (raised by the constructor), or the file ends within a tensor (raised by `read`).
    """

    def __init__(self, stream: BufferedReader) -> None:
        self._stream = stream
        try:
            self._entries, self._start = _header(stream)
            self._check(os.fstat(stream.fileno()).st_size - self._start)
        except (AttributeError, KeyError, IndexError, TypeError, RecursionError) as error:
            raise ValueError("its header is not that of a safetensors file") from error

    def names(self) -> list[str]:
        """Return the names of all tensors in the order of their data."""
        return sorted(self._entries, key=lambda name: int(self._entries[name]["data_offsets"][0]))

    def read(self, name: str) -> Tensor:
        """Read one tensor into memory of its own."""
        entry = self._entries[name]
        tensor = torch.empty(entry["shape"], dtype=DTYPES[entry["dtype"]])
        self._stream.seek(self._start + entry["data_offsets"][0])
        if self._stream.readinto(tensor.reshape(-1).view(torch.uint8).numpy().data) != tensor.nbytes:
            raise ValueError(f"it ends within {name}")
        return tensor

    def _check(self, data_bytes: int) -> None:
        """Check that each tensor's extent matches its dtype and shape, and that the tensors fill the file without gaps."""
        end = 0
        for name in self.names():
            entry = self._entries[name]
            begin, stop = entry["data_offsets"]
            if entry["dtype"] not in DTYPES:
                raise ValueError(f"{name} is of type {entry['dtype']}")
            if {type(begin), type(stop)} != {int}:
                raise ValueError(f"{name} has offsets that are not whole numbers")
            if any(type(size) is not int or not 0 <= size <= data_bytes for size in entry["shape"]):
                raise ValueError(f"{name} has shape {entry['shape']}")
            if begin != end or stop - begin != math.prod(entry["shape"]) * DTYPES[entry["dtype"]].itemsize:
                raise ValueError(f"the data_offsets of {name} do not match its shape or leave a gap")
            end = stop
        if end != data_bytes:
            raise ValueError(f"it has {data_bytes} bytes of data instead of {end}")


def _header(stream: BufferedReader) -> tuple[dict[str, Any], int]:
    """Read the header; return its entries and the offset of the data."""
    length = int.from_bytes(stream.read(8), "little")
    if length > MAX_HEADER_BYTES:
        raise ValueError(f"its header claims {length} bytes, more than {MAX_HEADER_BYTES}")
    entries = json.loads(stream.read(length), object_pairs_hook=_no_duplicates)
    entries.pop("__metadata__", None)
    return entries, 8 + length


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse duplicate names, of which JSON would use the last."""
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("its header has a duplicate name")
    return dict(pairs)
