"""Read protobuf's wire format strictly, field by field, with a table of the allowed messages.

Protobuf accepts unknown fields and repeated values of singular fields. This reader refuses both, and messages with too many fields.
Payloads are returned as slices and not copied, so a file of 100 MB that consists mostly of weights takes milliseconds.
Format: https://protobuf.dev/programming-guides/encoding
"""

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

Slice: TypeAlias = tuple[int, int]
"""Offset of the first byte, and of the byte after the last."""
Tags: TypeAlias = Mapping[int, tuple[str, int]]
"""Tag on the wire → name of the field, and a bit of its own if the field is singular, else 0."""

VARINT, BYTES, FIXED32 = 0, 2, 5
"""Wire types of the allowed fields."""
WIRE = 7
"""Mask of the wire type in a tag."""
LAST_OF_VARINT = 127
"""Bytes up to this value end a varint."""
MAX_UINT64 = (1 << 64) - 1
CONTINUED = bytes(range(128, 256))
"""Bytes of a varint that are followed by another."""

MAX_TEXT_BYTES = 1024


def tags(row: str) -> Tags:
    """Parse the fields of a message from a row of the table.

    Args:
        row: Entries `name:number`, separated by spaces. The number is followed by v for a varint, f for 4 bytes, or nothing for bytes,
            and by * if the field is repeated.
    """
    parsed: dict[int, tuple[str, int]] = {}
    for index, entry in enumerate(row.split()):
        name, _, kind = entry.partition(":")
        wire = VARINT if "v" in kind else FIXED32 if "f" in kind else BYTES
        parsed[int(kind.rstrip("vf*")) << 3 | wire] = (name, 0 if "*" in kind else 1 << index)
    return parsed


class Wire:
    """Reader of bytes in protobuf's format. Its methods raise ValueError if the bytes are damaged or contain something else."""

    def __init__(self, data: bytes, messages: Mapping[str, Tags], max_fields: int) -> None:
        """Wrap the bytes.

        Args:
            data: The file's bytes.
            messages: Name of a message → its fields.
            max_fields: Largest number of fields in all messages together.
        """
        self.data = data
        self._messages, self._max_fields, self._fields_left = messages, max_fields, max_fields

    def fields(self, message: str, where: Slice) -> Iterator[tuple[str, Any]]:
        """Yield the name and value of every field of a message. The value is a number, or a slice for bytes and 4-byte fields."""
        data, known, seen = self.data, self._messages[message], 0
        position, end = where
        while position < end:
            value: Any
            tag = data[position]
            position += 1
            if tag > LAST_OF_VARINT:  # nearly all numbers have one byte, and a call for each would double the time
                tag, position = self._varint(position - 1, end)
            if tag not in known:
                raise ValueError(f"field {tag >> 3} of the {message} is not one that this toolkit writes, or the file is damaged")
            name, once = known[tag]
            if seen & once:
                raise ValueError(f"the {message} has its {name} twice")
            seen |= once
            self._fields_left -= 1
            if self._fields_left < 0:
                raise ValueError(f"it has more than {self._max_fields} fields")
            wire = tag & WIRE
            if wire == FIXED32:
                value = (position, position + 4)
                position += 4
            else:
                value, position = (data[position], position + 1) if position < end else self._varint(position, end)
                if value > LAST_OF_VARINT:
                    value, position = self._varint(position - 1, end)
                if wire == BYTES:
                    value = (position, position + value)
                    position = value[1]
            if position > end:
                raise ValueError(f"the {message} ends within its {name}")
            yield name, value

    def varints(self, where: Slice, limit: int) -> list[int]:
        """Return packed numbers; stop after `limit` + 1 of them."""
        position, end = where
        numbers: list[int] = []
        while position < end and len(numbers) <= limit:
            number, position = self._varint(position, end)
            numbers.append(number)
        return numbers

    def count_varints(self, where: Slice) -> int:
        """Return the number of packed numbers."""
        return len(self.data[where[0] : where[1]].translate(None, CONTINUED))

    def text(self, where: Slice | None) -> str:
        """Return a slice as text; None gives the empty string."""
        start, stop = where or (0, 0)
        if stop - start > MAX_TEXT_BYTES:
            raise ValueError(f"a name has {stop - start} bytes")
        text = self.data[start:stop].decode()
        if not text.isprintable():
            raise ValueError("a name is not printable text")
        return text

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        """Return a number and the offset after it."""
        value = 0
        for shift in range(0, 64, 7):
            if position >= end:
                raise ValueError("it ends within a number")
            byte = self.data[position]
            position += 1
            value |= (byte & LAST_OF_VARINT) << shift
            if byte <= LAST_OF_VARINT:
                return value & MAX_UINT64, position
        raise ValueError("a number has more than 64 bits")
