"""Damage to bytes, as disks, downloads and people make it: bytes and a seeded source of chance go in, other bytes come out."""

import random
from collections.abc import Callable

EXTREMES = (b"\0", b"\xff", b"\x7f", b"\x80", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80")


def flip(data: bytes, chance: random.Random) -> bytes:
    """One to sixteen flipped bits."""
    damaged = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
        damaged[_place(data, chance)] ^= 1 << chance.randrange(8)
    return bytes(damaged)


def overwrite(data: bytes, chance: random.Random) -> bytes:
    """Bytes set to extremes, as lengths and counts would have to be to overflow something."""
    place, value = _place(data, chance), chance.choice((*EXTREMES, chance.randbytes(chance.choice((1, 2, 4, 8)))))
    return data[:place] + value + data[place + len(value) :]


def truncate(data: bytes, chance: random.Random) -> bytes:
    """The end is missing."""
    return data[: _place(data, chance)]


def extend(data: bytes, chance: random.Random) -> bytes:
    """Something follows the end."""
    return data + chance.choice((b"\0", b"\n", data[:64], chance.randbytes(chance.randrange(1, 64))))


def drop(data: bytes, chance: random.Random) -> bytes:
    """A piece is missing."""
    place = _place(data, chance)
    return data[:place] + data[place + chance.randrange(1, 33) :]


def repeat(data: bytes, chance: random.Random) -> bytes:
    """A piece comes twice."""
    place = _place(data, chance)
    return data[: place + chance.randrange(1, 33)] + data[place:]


def swap(data: bytes, chance: random.Random) -> bytes:
    """Two pieces have changed places."""
    size = chance.randrange(1, 17)
    first, second = sorted((_place(data, chance), _place(data, chance)))
    if second < first + size:
        return flip(data, chance)
    return data[:first] + data[second : second + size] + data[first + size : second] + data[first : first + size] + data[second + size :]


def zero(data: bytes, chance: random.Random) -> bytes:
    """A block of a disk reads as zeros."""
    place = _place(data, chance)
    size = min(len(data) - place, chance.choice((8, 64, 512, 4096)))
    return data[:place] + bytes(size) + data[place + size :]


KINDS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    kind.__name__: kind for kind in (flip, overwrite, truncate, extend, drop, repeat, swap, zero)
}


def damaged(data: bytes, chance: random.Random) -> tuple[str, bytes]:
    """Return a kind of damage and other bytes than were given."""
    while True:
        kind = chance.choice(list(KINDS))
        mutated = KINDS[kind](data, chance)
        if mutated != data:
            return kind, mutated


def _place(data: bytes, chance: random.Random) -> int:
    """Anywhere, the start more often: headers are where parsers go wrong."""
    return chance.randrange(len(data) if chance.random() < 0.5 else min(len(data), 256))
