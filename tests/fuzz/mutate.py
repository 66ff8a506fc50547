"""Functions that damage bytes as disks, downloads and editors do. Arguments are the bytes and a seeded random generator."""

import random
from collections.abc import Callable

EXTREMES = (b"\0", b"\xff", b"\x7f", b"\x80", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80")


def flip(data: bytes, chance: random.Random) -> bytes:
    """Flip one to sixteen bits."""
    damaged = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
        damaged[_place(data, chance)] ^= 1 << chance.randrange(8)
    return bytes(damaged)


def overwrite(data: bytes, chance: random.Random) -> bytes:
    """Set bytes to extreme values, which overflow lengths and counts."""
    place, value = _place(data, chance), chance.choice((*EXTREMES, chance.randbytes(chance.choice((1, 2, 4, 8)))))
    return data[:place] + value + data[place + len(value) :]


def truncate(data: bytes, chance: random.Random) -> bytes:
    """Remove the end."""
    return data[: _place(data, chance)]


def extend(data: bytes, chance: random.Random) -> bytes:
    """Append bytes."""
    return data + chance.choice((b"\0", b"\n", data[:64], chance.randbytes(chance.randrange(1, 64))))


def drop(data: bytes, chance: random.Random) -> bytes:
    """Remove a piece."""
    place = _place(data, chance)
    return data[:place] + data[place + chance.randrange(1, 33) :]


def repeat(data: bytes, chance: random.Random) -> bytes:
    """Repeat a piece."""
    place = _place(data, chance)
    return data[: place + chance.randrange(1, 33)] + data[place:]


def swap(data: bytes, chance: random.Random) -> bytes:
    """Swap two pieces."""
    size = chance.randrange(1, 17)
    first, second = sorted((_place(data, chance), _place(data, chance)))
    if second < first + size:
        return flip(data, chance)
    return data[:first] + data[second : second + size] + data[first + size : second] + data[first : first + size] + data[second + size :]


def zero(data: bytes, chance: random.Random) -> bytes:
    """Set a block of a disk to zeros."""
    place = _place(data, chance)
    size = min(len(data) - place, chance.choice((8, 64, 512, 4096)))
    return data[:place] + bytes(size) + data[place + size :]


KINDS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    kind.__name__: kind for kind in (flip, overwrite, truncate, extend, drop, repeat, swap, zero)
}


def damaged(data: bytes, chance: random.Random) -> tuple[str, bytes]:
    """Return the kind of a random damage and the damaged bytes, which differ from the input."""
    while True:
        kind = chance.choice(list(KINDS))
        mutated = KINDS[kind](data, chance)
        if mutated != data:
            return kind, mutated


def _place(data: bytes, chance: random.Random) -> int:
    """Return a random offset. The start is more likely, because most errors of parsers are in headers."""
    return chance.randrange(len(data) if chance.random() < 0.5 else min(len(data), 256))
