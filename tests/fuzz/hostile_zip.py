"""Hand-made hostile zip files: the files of an honest package go in, named archives that must be refused come out."""

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from tests.fuzz.hostile_tar import NAMES

LOCAL, ENTRY, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"


@dataclass(frozen=True, kw_only=True)
class Spelled:
    """A member of a zip file as its two headers spell it; None: what is true."""

    name: bytes
    content: bytes
    stored: bytes | None = None
    need: int = 10
    flags: int = 0
    method: int = 0
    time: int = 0
    crc: int | None = None
    packed: int | None = None
    size: int | None = None
    extra: bytes = b""
    entry_name: bytes | None = None
    entry_size: int | None = None
    entry_at: int | None = None
    attributes: int = 0
    comment: bytes = b""
    behind: bytes = b""
    listed: bool = True

    def fields(self, size: int | None) -> bytes:
        """What both headers hold."""
        data = self.content if self.stored is None else self.stored
        crc = zlib.crc32(self.content) if self.crc is None else self.crc
        packed = len(data) if self.packed is None else self.packed
        real = len(self.content) if size is None else size
        return struct.pack("<HHHHHLLL", self.need, self.flags, self.method, self.time, 0x21, crc, packed, real)

    def local(self) -> bytes:
        """Its header and content."""
        data = self.content if self.stored is None else self.stored
        return (
            LOCAL
            + self.fields(self.size)
            + struct.pack("<HH", len(self.name), len(self.extra))
            + self.name
            + self.extra
            + data
            + self.behind
        )

    def entry(self, at: int) -> bytes:
        """Its line in the directory."""
        name = self.name if self.entry_name is None else self.entry_name
        at = at if self.entry_at is None else self.entry_at
        sizes = struct.pack("<HHHHHLL", len(name), len(self.extra), len(self.comment), 0, 0, self.attributes, at)
        fields = self.fields(self.size if self.entry_size is None else self.entry_size)
        return ENTRY + struct.pack("<H", 10) + fields + sizes + name + self.extra + self.comment


def packed(
    members: list[Spelled], *, before: bytes = b"", comment: bytes = b"", count: int | None = None, disk: int = 0, middle: bytes = b""
) -> bytes:
    """A zip file of members."""
    body, entries = before, b""
    for member in members:
        at = len(body)
        body += member.local()
        entries += member.entry(at) if member.listed else b""
    number = sum(member.listed for member in members) if count is None else count
    return (
        body + entries + middle + END + struct.pack("<HHHHLLH", disk, disk, number, number, len(entries), len(body), len(comment)) + comment
    )


def deflated(member: Spelled) -> Spelled:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    return replace(member, stored=deflate.compress(member.content) + deflate.flush(), method=8)


def spelled(files: Mapping[str, bytes]) -> list[Spelled]:
    return [Spelled(name=name.encode(), content=content) for name, content in files.items()]


def honest_archive(files: Mapping[str, bytes]) -> bytes:
    """What all others differ from; it unpacks."""
    return packed(spelled(files))


def archives(files: Mapping[str, bytes], bomb_bytes: int) -> Iterator[tuple[str, bytes]]:
    """Yield every hostile archive with its name. `files` is an honest package: the manifest first."""
    honest = spelled(files)
    start, first, *rest = honest
    evil = Spelled(name=b"evil", content=b"x")

    def with_first(**changes: object) -> bytes:
        return packed([start, replace(first, **changes), *rest])  # type: ignore[arg-type]

    for kind, name in NAMES.items():
        yield f"name: {kind}", packed([*honest, replace(evil, name=name.encode())])
        yield f"name of a file: {kind}", with_first(name=name.encode())
    yield "name: NUL inside", packed([*honest, replace(evil, name=b"evil\0.onnx")])
    yield "name: not ASCII", packed([*honest, replace(evil, name="év".encode(), flags=1 << 11)])
    yield "case twin", packed([*honest, replace(first, name=first.name.upper())])
    yield "the same file twice", packed([*honest, first])
    yield "a file is missing", packed([start, *rest])
    yield "another order", packed([start, *rest[::-1], first])
    yield "no manifest", packed([first, *rest])
    yield "manifest last", packed([first, *rest, start])
    yield "nothing inside", packed([])
    yield "link", with_first(attributes=0o120777 << 16)
    yield "executable", with_first(attributes=0o104755 << 16)
    yield "folder", packed([*honest, Spelled(name=b"evil/", content=b"", attributes=0x10)])
    yield "deflated", packed([start, deflated(first), *rest])
    yield "deflated manifest", packed([deflated(start), first, *rest])
    yield "bomb", packed([start, deflated(replace(first, content=bytes(bomb_bytes))), *rest])
    yield (
        "bomb that claims its file's size",
        packed([start, replace(deflated(replace(first, content=bytes(bomb_bytes))), size=len(first.content)), *rest]),
    )
    yield "other method", with_first(method=99)
    yield "stored, but said to be deflated", with_first(method=8)
    yield "encrypted", with_first(flags=1)
    yield "size behind the content", with_first(flags=8, crc=0, packed=0, size=0, behind=struct.pack("<LLL", 0, 0, 0))
    yield "time", with_first(time=1)
    yield "needs a newer reader", with_first(need=63)
    yield (
        "zip64 sizes",
        with_first(size=0xFFFFFFFF, packed=0xFFFFFFFF, extra=struct.pack("<HHQQ", 1, 16, len(first.content), len(first.content))),
    )
    yield "zip64 lies", with_first(size=0xFFFFFFFF, packed=0xFFFFFFFF, extra=struct.pack("<HHQQ", 1, 16, 1 << 62, 1 << 62))
    yield (
        "zip64 end",
        packed(honest, middle=b"PK\x06\x06" + struct.pack("<QHHLLQQQQ", 44, 45, 45, 0, 0, 4, 4, 0, 0) + b"PK\x06\x07" + bytes(16)),
    )
    yield "extra field", with_first(extra=struct.pack("<HH", 0x7075, 4) + b"evil")
    yield "size: none", with_first(size=0, packed=0)
    yield "size: one more", with_first(size=len(first.content) + 1)
    yield "size: all there is", with_first(size=0xFFFFFFFF, packed=0xFFFFFFFF)
    yield "wrong checksum", with_first(crc=1)
    yield "a file is another of the same size", with_first(content=bytes(len(first.content)))
    yield "directory: another name", with_first(entry_name=b"evil".ljust(len(first.name), b"x"))
    yield "directory: traversal", with_first(entry_name=b"../../evil")
    yield "directory: another size", with_first(entry_size=1)
    yield "directory: another place", with_first(entry_at=0)
    yield "directory: outside", with_first(entry_at=0xFFFFFFF0)
    yield "directory: overlap", packed([start, first, *(replace(each, entry_at=0) for each in rest)])
    yield "directory: a comment", with_first(comment=b"evil")
    yield "directory: a file less", with_first(listed=False)
    yield "directory: no files", packed([replace(each, listed=False) for each in honest])
    yield "directory: count too small", packed(honest, count=1)
    yield "directory: count too large", packed(honest, count=0xFFFF)
    yield "directory: several disks", packed(honest, disk=1)
    yield "directory: missing", b"".join(each.local() for each in honest)
    yield "quoted overlap", with_first(content=first.content, behind=evil.local())
    yield "gap between members", with_first(behind=bytes(7))
    yield "something before", packed(honest, before=b"#!/bin/sh\nexit 1\n")
    yield "something behind", packed(honest) + b"x"
    yield "a comment", packed(honest, comment=b"evil")
    yield "a second archive in the comment", packed(honest, comment=packed([evil]))
    yield "a second archive behind", packed(honest) + packed([evil])
    yield "cut", packed(honest)[:-20]
    yield "cut inside a file", packed(honest)[: len(packed(honest)) // 2]
    yield "empty", b""
    yield "only a signature", LOCAL
    yield "only an end", packed([])[-22:]
    yield "manifest of 2 MB", packed([replace(start, content=b"[" * (2 << 20)), first, *rest])
    yield "manifest of open brackets", packed([replace(start, content=b"[" * 100_000), first, *rest])
    yield "archive in an archive", with_first(content=packed(honest))
    yield "as other tools write it", library(files, zipfile.ZIP_STORED)
    yield "as other tools deflate it", library(files, zipfile.ZIP_DEFLATED)
    yield "as other tools pack it with LZMA", library(files, zipfile.ZIP_LZMA)


def library(files: Mapping[str, bytes], method: int) -> bytes:
    """What `zipfile` writes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()
