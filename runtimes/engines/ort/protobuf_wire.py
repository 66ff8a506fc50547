"""The wire format of protobuf, read strictly: bytes and a table of messages go in, fields come out one by one.

Strict where protobuf is lenient: a field that the table does not name, a field twice that comes once, and more fields than a bound are
damage. Payloads are told as slices and never copied, so a file of 100 MB whose bytes are mostly weights takes milliseconds.
Format: https://protobuf.dev/programming-guides/encoding
"""

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

Slice: TypeAlias = tuple[int, int]
"""First byte, and the byte behind the last."""
Tags: TypeAlias = Mapping[int, tuple[str, int]]

VARINT, BYTES, FIXED32 = 0, 2, 5
"""Wire types that our tables use."""
WIRE = 7
"""Bits of a tag that hold the wire type."""
LAST_OF_VARINT = 127
MOST = (1 << 64) - 1
CONTINUED = bytes(range(128, 256))
"""Bytes of a varint that another follows."""

MAX_TEXT_BYTES = 1024


def tags(listed: str) -> Tags:
    """Read a table's row, `name:number` with v (varint) or f (4 bytes) unless it is bytes, and * where it may come again.

    Returns:
        Tag on the wire → the field's name, and a bit of its own if it comes once.
    """
    found: dict[int, tuple[str, int]] = {}
    for position, entry in enumerate(listed.split()):
        name, _, how = entry.partition(":")
        wire = VARINT if "v" in how else FIXED32 if "f" in how else BYTES
        found[int(how.rstrip("vf*")) << 3 | wire] = (name, 0 if "*" in how else 1 << position)
    return found


class Wire:
    """Bytes in protobuf's format. Whatever is wrong with them is a ValueError."""

    def __init__(self, data: bytes, messages: Mapping[str, Tags], max_fields: int) -> None:
        self.data = data
        self._messages, self._max_fields, self._fields_left = messages, max_fields, max_fields

    def fields(self, message: str, where: Slice) -> Iterator[tuple[str, Any]]:
        """Yield every field of a message: its name, and its number or slice."""
        data, known, seen = self.data, self._messages[message], 0
        position, end = where
        while position < end:
            value: Any
            tag = data[position]
            position += 1
            if tag > LAST_OF_VARINT:  # nearly every number is one byte: a call for each would double the time
                tag, position = self._varint(position - 1, end)
            if tag not in known:
                raise ValueError(f"field {tag >> 3} of the {message} is none that this toolkit writes, or the file is damaged")
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

    def varints(self, where: Slice, most: int) -> list[int]:
        """Return packed numbers, no more than one above `most` of them."""
        position, end = where
        numbers: list[int] = []
        while position < end and len(numbers) <= most:
            number, position = self._varint(position, end)
            numbers.append(number)
        return numbers

    def count_varints(self, where: Slice) -> int:
        """Return how many packed numbers there are."""
        return len(self.data[where[0] : where[1]].translate(None, CONTINUED))

    def text(self, where: Slice | None) -> str:
        """Return a name; none is empty."""
        start, stop = where or (0, 0)
        if stop - start > MAX_TEXT_BYTES:
            raise ValueError(f"a name has {stop - start} bytes")
        text = self.data[start:stop].decode()
        if not text.isprintable():
            raise ValueError("a name is not printable text")
        return text

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        """Return a number and the place behind it."""
        value = 0
        for shift in range(0, 64, 7):
            if position >= end:
                raise ValueError("it ends within a number")
            byte = self.data[position]
            position += 1
            value |= (byte & LAST_OF_VARINT) << shift
            if byte <= LAST_OF_VARINT:
                return value & MOST, position
        raise ValueError("a number has more than 64 bits")
