"""tar.gz files made by hand: hostile ones, which must be refused, and harmless ones, which unpack like the valid archive."""

import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from runtimes.artifact.folder import open_artifact
from runtimes.artifact.manifest import MANIFEST_NAME

GZIP_HEADER = bytes.fromhex("1f8b08000000000000ff")
"""Deflate, no name, no time, no level, system unknown."""
BLOCK = 512
END = bytes(2 * BLOCK)
KINDS = {
    "link": b"2", "hard link": b"1", "character device": b"3", "block device": b"4", "pipe": b"6", "folder": b"5",
    "contiguous file": b"7", "GNU sparse file": b"S", "volume": b"V", "continued file": b"M", "incremental folder": b"D",
    "PAX record": b"x", "PAX record for all": b"g", "GNU long name": b"L", "unknown kind": b"Z",
}  # fmt: skip
NAMES = {
    "traversal": "../evil", "deep traversal": "a/../../evil", "absolute": "/etc/evil", "backslash": "..\\evil", "drive": "C:evil",
    "folder": "a/evil",
    "dot": ".", "dots": "..", "hidden": ".evil", "trailing dot": "evil.", "device name": "con", "device name with suffix": "NUL.txt",
    "line feed": "ev\nil", "space": "ev il", "stream": "evil:ads", "tilde": "~root", "option": "-rf", "empty": "",
}  # fmt: skip


def patched(header: bytes, at: int, value: bytes) -> bytes:
    """Return a header with other bytes at an offset, and with a correct checksum."""
    header = header[:at] + value + header[at + len(value) :]
    header = header[:148] + b" " * 8 + header[156:]
    return header[:148] + b"%06o\0 " % sum(header) + header[156:]


def files_in(artifact: Path) -> dict[str, bytes]:
    """Return the files of an artifact, the manifest first."""
    return {name: (artifact / name).read_bytes() for name in (MANIFEST_NAME, *open_artifact(artifact).manifest.files)}


def tar_header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo("x")
    info.size = size
    return patched(info.tobuf(tarfile.USTAR_FORMAT), 0, name.encode().ljust(2, b"\0"))


def member(name: str, content: bytes, *, at: int = 0, value: bytes = b"", header: bytes | None = None, size: int | None = None) -> bytes:
    """Return a member; `value` overwrites its header from the offset `at` on."""
    header = tar_header(name, len(content) if size is None else size) if header is None else header
    return (patched(header, at, value) if value else header) + content + bytes(-len(content) % BLOCK)


def packed(tar: bytes, header: bytes = GZIP_HEADER) -> bytes:
    """Return a gzip file as the toolkit writes it."""
    deflate = zlib.compressobj(6, zlib.DEFLATED, -15)
    body = deflate.compress(tar) + deflate.flush()
    return header + body + zlib.crc32(tar).to_bytes(4, "little") + (len(tar) & 0xFFFFFFFF).to_bytes(4, "little")


def valid_archive(files: Mapping[str, bytes]) -> bytes:
    """Return the valid archive, from which all others differ."""
    return packed(b"".join(member(*each) for each in files.items()) + END)


def archives(files: Mapping[str, bytes], bomb_bytes: int) -> Iterator[tuple[str, bytes]]:
    """Yield every hostile archive with its name. `files` are those of a valid package, the manifest first."""
    members = list(files.items())
    (_, manifest), *payload = members
    first, last = payload[0], payload[-1]
    start = member(MANIFEST_NAME, manifest)
    valid = b"".join(member(*each) for each in members)
    for kind, flag in KINDS.items():
        yield f"{kind} in place of a file", packed(start + member(first[0], b"", at=156, value=flag + b"/etc/passwd") + END)
        yield f"{kind} behind the last file", packed(valid + member("evil", b"", at=156, value=flag + b"../../evil") + END)
    yield "link, then a file through it", packed(start + member("a", b"", at=156, value=b"2/etc") + member("a", b"x") + END)
    for kind, name in NAMES.items():
        yield f"name: {kind}", packed(valid + member(name, b"evil") + END)
        yield f"manifest's first file renamed: {kind}", packed(start + member(name, first[1]) + END)
    yield "name: NUL inside", packed(valid + member("x", b"", at=0, value=b"evil\0.onnx") + END)
    yield "name: not ASCII", packed(valid + member("x", b"", at=0, value="év".encode()) + END)
    yield "name: path prefix", packed(valid + member("evil", b"x", at=345, value=b"../..") + END)
    yield "case twin", packed(valid + member(first[0].upper(), first[1]) + END)
    yield "the same file twice", packed(valid + member(*first) + END)
    yield "the manifest twice", packed(start + valid + END)
    yield "a file is missing", packed(start + b"".join(member(*each) for each in payload[1:]) + END)
    yield "another order", packed(start + b"".join(member(*each) for each in payload[::-1]) + END)
    yield "no manifest", packed(b"".join(member(*each) for each in payload) + END)
    yield "manifest last", packed(b"".join(member(*each) for each in payload) + start + END)
    yield "nothing inside", packed(END)
    yield "a file is longer", packed(start + member(first[0], first[1] + b"x") + END)
    yield "a file is shorter", packed(start + member(first[0], first[1][:-1]) + END)
    yield "a file is another of the same size", packed(start + member(first[0], bytes(len(first[1]))) + END)
    for kind, size in {
        "negative": b"\xff" * 12,
        "in base 256": b"\x80" + (1 << 60).to_bytes(11, "big"),
        "with spaces": b"       1234 ",
        "not octal": b"99999999999\0",
        "signed": b"-0000000001\0",
        "all there is": b"77777777777\0",
    }.items():
        yield f"size: {kind}", packed(start + member(first[0], b"x", at=124, value=size) + END)
    wrong = tar_header(*(first[0], len(first[1])))
    yield "header: wrong checksum", packed(start + member(*first, header=wrong[:148] + b"000000\0 " + wrong[156:]) + END)
    yield "something behind the end", packed(valid + END + member("evil", b"x"))
    yield "one end block", packed(valid + END[:BLOCK])
    yield "no end", packed(valid)
    yield "cut inside a header", packed(valid[: len(start) + 100])
    yield "cut inside a file", packed(valid[:-BLOCK])
    yield "gzip: cut", packed(valid + END)[:-20]
    yield "gzip: wrong checksum", packed(valid + END)[:-8] + bytes(8)
    yield "gzip: wrong length", packed(valid + END)[:-4] + bytes(4)
    yield "gzip: a second member", packed(valid + END) + packed(member("evil", b"x"))
    yield "gzip: something behind", packed(valid + END) + b"x"
    yield "gzip: reserved flags", packed(valid + END, b"\x1f\x8b\x08\xe0" + GZIP_HEADER[4:])
    yield "gzip: another method", packed(valid + END, b"\x1f\x8b\x07\0" + GZIP_HEADER[4:])
    yield "gzip: twice", packed(packed(valid + END))
    yield "xz", lzma.compress(valid + END)
    yield "no compression", valid + END
    yield "empty", b""
    yield "two bytes", GZIP_HEADER[:2]
    yield "text", b"<html>404 Not Found</html>"
    yield "bomb behind the end", packed(valid + END + bytes(bomb_bytes))
    yield "bomb in place of a file", packed(start + member(first[0], bytes(bomb_bytes)) + END)
    yield "manifest that is a bomb", packed(member(MANIFEST_NAME, bytes(bomb_bytes)) + END)
    yield "manifest of 2 MB of open brackets", packed(member(MANIFEST_NAME, b"[" * (2 << 20)) + END)
    yield "manifest of open brackets", packed(member(MANIFEST_NAME, b"[" * 100_000) + END)
    yield "archive in an archive", packed(start + member(first[0], packed(valid + END)) + END)
    for kind, headers in {
        "path": {"path": "../evil"},
        "linkpath": {"linkpath": "/etc/passwd"},
        "size": {"size": "99999999999"},
        "sparse": {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "../evil", "GNU.sparse.realsize": "1000000000000"},
    }.items():
        yield f"PAX record: {kind}", packed(library(members, last[0], headers, tarfile.PAX_FORMAT))
    yield "PAX record for all", packed(library(members, last[0], {}, tarfile.PAX_FORMAT, {"path": "../evil"}))
    yield "GNU long name", packed(library([*members, ("a" * 300, b"x")], last[0], {}, tarfile.GNU_FORMAT))


def harmless(files: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield archives that differ from the valid one in fields that the reader ignores."""
    first, *others = list(files.items())[1:]
    start, rest = member(MANIFEST_NAME, files[MANIFEST_NAME]), b"".join(member(*each) for each in others) + END
    for kind, (at, value) in {
        "mode with setuid": (100, b"0004755\0"),
        "owner": (108, b"0001750\0"),
        "time": (136, b"14000000000\0"),
        "owner's name": (265, b"root"),
        "device number": (329, b"0000001\0"),
        "GNU format": (257, b"ustar  \0"),
        "no format": (257, bytes(8)),
        "old regular file": (156, b"\0"),
        "link name of a regular file": (157, b"/etc/passwd"),
    }.items():
        yield f"header: {kind}", packed(start + member(*first, at=at, value=value) + rest)
    yield (
        "something in the padding",
        packed(start + member(first[0], first[1] + b"x" * (-len(first[1]) % BLOCK), size=len(first[1])) + rest),
    )
    yield "gzip: with a name", gzip_named(start + member(*first) + rest)
    yield "filled up to a record", packed(start + member(*first) + rest + bytes(9 * 1024))


def gzip_named(tar: bytes) -> bytes:
    stream = io.BytesIO()
    with gzip.GzipFile("../evil", "wb", fileobj=stream, mtime=0) as out:
        out.write(tar)
    return stream.getvalue()


def library(files: list[tuple[str, bytes]], marked: str, headers: dict[str, str], layout: int, everywhere: Any = None) -> bytes:
    """Return an archive of `tarfile` with PAX records for one member or for all."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=layout, pax_headers=everywhere) as archive:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            if name == marked:
                info.pax_headers = headers
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()
