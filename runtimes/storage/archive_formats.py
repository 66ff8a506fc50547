"""tar.gz and zip in the one spelling that we write: members go in, a file comes out; and back, in order, block by block.

Reading takes a name and a size from a member's header, spells that header itself and compares. A link, a device, a sparse file, an owner,
a PAX record, a long name, an encrypted or overlapping member is another spelling, so none of them has to be known, nor undone.
Legend: ustar is POSIX.1-1988's tar header of 512 bytes; zip is PKWARE's APPNOTE 6.3 without zip64, every member stored as it is.
"""

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, Protocol

BLOCK_BYTES = 1 << 20


class Readable(Protocol):
    """What archives are read from, front to back."""

    def read(self, count: int, /) -> bytes:
        """Return that many bytes, or what is left."""
        ...


@dataclass(frozen=True, kw_only=True)
class Member:
    """A file of an archive, or one on its way into it."""

    name: str
    size: int
    """In bytes."""
    blocks: Iterator[bytes]
    """Its content; from a reader, to be used up before the next member is asked for."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """One kind of archive."""

    suffix: str
    magic: bytes
    """What a file of this kind starts with."""
    longest_name: int
    most_bytes: int
    """That a member (tar.gz) or the whole (zip) may have."""
    write: Callable[[BinaryIO, Iterable[Member]], None]
    """Write members to a file that can be sought in."""
    read: Callable[[Readable], Iterator[Member]]
    """Read members; ValueError or zlib.error where the file is not spelled as `write` would."""


GZIP_HEADER = bytes.fromhex("1f8b08000000000000ff")
"""Deflate, no name, no time, no hint of the level, system unknown."""
GZIP_LEVEL = 6
TAR_BLOCK = 512
TAR_END = bytes(2 * TAR_BLOCK)
TAR_FIELDS = (
    (0, "name"), (100, "mode"), (108, "owner"), (116, "group"), (124, "size"), (136, "time"), (148, "checksum"), (156, "kind"),
    (157, "link"), (257, "format"), (265, "owner's name"), (297, "group's name"), (329, "device"), (345, "path prefix"), (500, "padding"),
)  # fmt: skip
"""Where each field of a ustar header starts."""


def tar_header(name: str, size: int) -> bytes:
    """Spell the header of a regular file."""
    zero, zeros = b"0000000\0", b"00000000000\0"
    front = struct.pack("100s8s8s8s12s12s", name.encode("ascii"), b"0000644\0", zero, zero, b"%011o\0" % size, zeros)
    back = struct.pack("c100x8s247x", b"0", b"ustar\x0000")
    return front + b"%06o\0 " % (sum(front) + 8 * ord(" ") + sum(back)) + back


def write_tar_gz(stream: BinaryIO, members: Iterable[Member]) -> None:
    """Write members; equal members give equal bytes wherever zlib deflates alike."""
    deflate, checksum, size = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS), 0, 0
    stream.write(GZIP_HEADER)
    for block in _tar(members):
        checksum, size = zlib.crc32(block, checksum), size + len(block)
        stream.write(deflate.compress(block))
    stream.write(deflate.flush() + struct.pack("<LL", checksum, size & 0xFFFFFFFF))


def _tar(members: Iterable[Member]) -> Iterator[bytes]:
    for member in members:
        yield tar_header(member.name, member.size)
        yield from member.blocks
        yield bytes(-member.size % TAR_BLOCK)
    yield TAR_END


def read_tar_gz(stream: Readable) -> Iterator[Member]:
    """Read members, holding no more than a block of what was inflated."""
    inflated = _Inflated(stream)
    while (header := inflated.exactly(TAR_BLOCK)) != TAR_END[:TAR_BLOCK]:
        name = _name(header[:100].rstrip(b"\0"))
        size = int(header[124:135], 8) if header[124:135].isdigit() else 0
        if header != (ours := tar_header(name, size)):
            raise ValueError(f"member {name!r} has a {_field(header, ours)} that no regular file of ours has")
        yield Member(name=name, size=size, blocks=_blocks(inflated.exactly, size))
        if any(inflated.exactly(-size % TAR_BLOCK)):
            raise ValueError(f"something is hidden behind member {name!r}")
    if inflated.exactly(TAR_BLOCK) != TAR_END[:TAR_BLOCK] or not inflated.ended():
        raise ValueError("something is hidden behind its last member")


def _field(header: bytes, ours: bytes) -> str:
    """Name the first field in which headers differ; the checksum only where nothing else does."""
    ends = [start for start, _ in TAR_FIELDS[1:]] + [TAR_BLOCK]
    different = [field for (start, field), end in zip(TAR_FIELDS, ends, strict=True) if header[start:end] != ours[start:end]]
    return next((field for field in different if field != "checksum"), "checksum")


class _Inflated:
    """The content of a gzip file with one member, inflated as it is asked for."""

    def __init__(self, stream: Readable) -> None:
        if (header := stream.read(len(GZIP_HEADER))) != GZIP_HEADER:
            raise ValueError("its gzip header carries a name, a time or flags")
        self._stream, self._inflate, self._buffer = stream, zlib.decompressobj(zlib.MAX_WBITS | 16), bytearray()
        self._inflate.decompress(header)

    def exactly(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        while len(self._buffer) < count:
            if not (block := self._more()):
                raise ValueError("it is cut off")
            self._buffer += block
        wanted = bytes(self._buffer[:count])
        del self._buffer[:count]
        return wanted

    def ended(self) -> bool:
        """Whether nothing is left, neither inside nor behind, and the checksum was right."""
        return not self._buffer and not self._more() and self._inflate.eof and not self._inflate.unused_data and not self._stream.read(1)

    def _more(self) -> bytes:
        while not self._inflate.eof:
            raw = self._inflate.unconsumed_tail or self._stream.read(BLOCK_BYTES)
            if (block := self._inflate.decompress(raw, BLOCK_BYTES)) or not raw:
                return block
        return b""


ZIP_LOCAL = b"PK\x03\x04"
ZIP_FIRST_DAY = 0x21
"""1980-01-01, the earliest that the format knows."""


def zip_fields(name: str, size: int, checksum: int) -> bytes:
    """Spell what a member's local header and its entry in the directory have in common: stored, no flags, no extra field."""
    return struct.pack("<HHHHHLLLHH", 10, 0, 0, 0, ZIP_FIRST_DAY, checksum, size, size, len(name), 0)


def zip_end(directory: list[tuple[str, int, int, int]], offset: int) -> bytes:
    """Spell everything behind the last member.

    Args:
        directory: (name, bytes, checksum, offset) per member.
        offset: Where the directory starts.
    """
    entries = b"".join(
        b"PK\x01\x02"
        + struct.pack("<H", 10)
        + zip_fields(name, size, checksum)
        + struct.pack("<HHHLL", 0, 0, 0, 0, at)
        + name.encode("ascii")
        for name, size, checksum, at in directory
    )
    count = len(directory)
    return entries + b"PK\x05\x06" + struct.pack("<HHHHLLH", 0, 0, count, count, len(entries), offset, 0)


def write_zip(stream: BinaryIO, members: Iterable[Member]) -> None:
    """Write members; equal members give equal bytes everywhere. struct.error beyond 4 GiB."""
    directory: list[tuple[str, int, int, int]] = []
    for member in members:
        start, checksum = stream.tell(), 0
        stream.write(ZIP_LOCAL + zip_fields(member.name, member.size, checksum) + member.name.encode("ascii"))
        for block in member.blocks:
            checksum = zlib.crc32(block, checksum)
            stream.write(block)
        end = stream.seek(0, 1)
        stream.seek(start)
        stream.write(ZIP_LOCAL + zip_fields(member.name, member.size, checksum))
        stream.seek(end)
        directory.append((member.name, member.size, checksum, start))
    stream.write(zip_end(directory, stream.tell()))


def read_zip(stream: Readable) -> Iterator[Member]:
    """Read members from the front; what stands behind them must be the directory of just these."""
    directory: list[tuple[str, int, int, int]] = []
    start = 0
    while (signature := stream.read(4)) == ZIP_LOCAL:
        fields = _exactly(stream, 26)
        checksum, size, length = struct.unpack("<LxxxxLH", fields[10:24])
        name = _name(_exactly(stream, length))
        if fields != zip_fields(name, size, checksum):
            raise ValueError(f"member {name!r} is compressed, encrypted or otherwise not stored as a regular file of ours")
        yield Member(name=name, size=size, blocks=_stored(stream, name, size, checksum))
        directory.append((name, size, checksum, start))
        start += 30 + length + size
    end = zip_end(directory, start)
    if signature + stream.read(len(end) + 1 - len(signature)) != end:
        raise ValueError("something is hidden behind its last member, or its directory names something else")


def _stored(stream: Readable, name: str, size: int, checksum: int) -> Iterator[bytes]:
    found = 0
    for block in _blocks(partial(_exactly, stream), size):
        found = zlib.crc32(block, found)
        yield block
    if found != checksum:
        raise ValueError(f"member {name!r} has another checksum")


def _exactly(stream: Readable, count: int) -> bytes:
    found = stream.read(count)
    if len(found) != count:
        raise ValueError("it is cut off")
    return found


def _name(spelled: bytes) -> str:
    if not spelled.isascii():
        raise ValueError(f"a member's name, {spelled!r}, is not ASCII")
    return spelled.decode("ascii")


def _blocks(exactly: Callable[[int], bytes], size: int) -> Iterator[bytes]:
    for start in range(0, size, BLOCK_BYTES):
        yield exactly(min(BLOCK_BYTES, size - start))


FORMS = (
    Form(suffix=".tar.gz", magic=GZIP_HEADER[:2], longest_name=100, most_bytes=8**11 - 1, write=write_tar_gz, read=read_tar_gz),
    Form(suffix=".zip", magic=ZIP_LOCAL, longest_name=255, most_bytes=2**32 - 1, write=write_zip, read=read_zip),
)
"""The first one is the default."""
