"""Write a package as a tar.gz archive, and unpack an archive into a folder.

The manifest is the first member and declares name, size, order and sha256 of all other members. The reader reads exactly these sizes,
checks each hash while it copies the bytes into files that it opened itself, and removes every file if one is wrong.

`tarfile` only builds and parses single headers of 512 bytes here. Its stream reader is not used, since it follows PAX and GNU extension
headers of any size (CVE-2025-8194) and does not check gzip's checksum. Its extraction is not used, since it has allowed path traversal
(CVE-2007-4559, CVE-2025-4517).
"""

import gzip
import hashlib
import re
import tarfile
import zlib
from collections.abc import Iterator
from errno import ENOSPC
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from runtimes.artifact.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, Manifest, parse_manifest
from runtimes.errors import ArchiveError, DigestError, OutputError, OutputExistsError, RequestError, ToolkitError
from runtimes.storage.atomic_write import free_bytes, locked, set_mode, sync_file, sync_folder, working_folder
from runtimes.storage.blocks import BLOCK_BYTES

SUFFIX = ".tar.gz"
MAX_MEMBERS = 64
MAX_MEMBER_BYTES = 8**11 - 1
"""Largest size of a file: a tar header has 11 octal digits for it."""
MAX_RATIO = 200
"""Largest ratio of unpacked bytes to bytes of the archive."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{,99}")
"""File names that every system accepts: ASCII, no separator, not hidden, short enough for a tar header."""
RESERVED = re.compile(r"(?i:con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?|.*\.")
"""Names that Windows reserves for devices, and names whose trailing dot it drops."""
END = bytes(2 * tarfile.BLOCKSIZE)


def check_suffix(path: Path) -> None:
    """Check that an archive's name ends in `SUFFIX`.

    Raises:
        RequestError: The name has another ending.
    """
    if not path.name.endswith(SUFFIX):
        raise RequestError(f"{path}: is not the name of a package; name a file that ends in {SUFFIX}")


def write_archive(stream: BinaryIO, path: Path, manifest: Manifest, content: Iterator[Iterator[bytes]]) -> None:
    """Write a package. The bytes are reproducible for equal input and an equal version of zlib.

    Args:
        stream: Output.
        path: Name of the archive for error messages.
        manifest: The manifest; its content is the first member.
        content: For each declared file, in the manifest's order, blocks of bytes with the declared size in total.

    Raises:
        ArchiveError: A name, a size or the number of files is not allowed in an archive.
    """
    manifest_bytes = manifest.content
    _check_declared(path, manifest)
    with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=stream, mtime=0) as out:
        sizes = {MANIFEST_NAME: len(manifest_bytes)} | {name: entry.bytes for name, entry in manifest.files.items()}
        for (name, size), blocks in zip(sizes.items(), chain([iter([manifest_bytes])], content), strict=True):
            header = tarfile.TarInfo(name)
            header.size = size
            out.write(header.tobuf(tarfile.USTAR_FORMAT))
            out.writelines(blocks)
            out.write(bytes(_padding(size)))
        out.write(END)


def unpack(archive: Path, target: Path, digest: str | None = None) -> Manifest:
    """Unpack an archive into the folder `target` and return its manifest. The folder appears after all files have been checked.

    Args:
        archive: A file that `toolkit package` wrote.
        target: A folder that does not exist or is empty.
        digest: Expected sha256 of the manifest, as the sender published it; None skips the comparison.

    Raises:
        RequestError: There is no such file.
        ArchiveError: The archive is damaged, or differs from what `toolkit package` writes.
        ManifestError, ManifestVersionError: The manifest is invalid.
        DigestError: The manifest has another digest.
        OutputExistsError, OutputError: The folder cannot be created. Partial output is removed.
    """
    if not archive.is_file():
        raise RequestError(f"{archive}: no such file; check the path")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target), working_folder(target.parent, f".{target.name}.partial-") as folder:
            if target.exists() and (not target.is_dir() or any(target.iterdir())):
                raise OutputExistsError(target, "Unpack into another folder (-o DIR) or remove it first.")
            with _Inflated(archive) as source:
                manifest = _extract(source, folder, digest)
            set_mode(folder, 0o755)
            if target.exists():
                target.rmdir()
            folder.rename(target)
            sync_folder(target.parent)
            return manifest
    except OSError as error:
        if isinstance(error, ToolkitError):
            raise
        raise OutputError(target, error.strerror or str(error)) from error


def read_archive_manifest(archive: Path) -> Manifest:
    """Return the manifest of an archive, without reading the members after it.

    Raises:
        ArchiveError: The file does not start like an archive of `toolkit package`.
        ManifestError, ManifestVersionError: The manifest is invalid.
    """
    with _Inflated(archive) as source:
        return _manifest(source)


class _Inflated:
    """The content of a gzip file with one member. Only requested bytes are inflated, so a decompression bomb needs no memory."""

    def __init__(self, path: Path) -> None:
        self.path, self._inflate = path, zlib.decompressobj(zlib.MAX_WBITS | 16)
        try:
            self._stream, self.archive_bytes = path.open("rb"), path.stat().st_size
        except OSError as error:
            raise self.wrong(f"cannot be read ({error.strerror})") from error

    def __enter__(self) -> "_Inflated":
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def wrong(self, problem: str) -> ArchiveError:
        return ArchiveError(self.path, problem)

    def blocks(self, size: int) -> Iterator[bytes]:
        """Yield exactly the next `size` bytes, then skip the padding of the last tar block."""
        for start in range(0, size, BLOCK_BYTES):
            yield self.exactly(min(BLOCK_BYTES, size - start))
        self.exactly(_padding(size))

    def exactly(self, count: int) -> bytes:
        content = self._up_to(count)
        if len(content) < count:
            raise self.wrong("it is cut off")
        return content

    def check_end(self) -> None:
        """Require the end of the tar file, at most zero padding of a record after it, and the end of the gzip file."""
        limit = 2 * tarfile.RECORDSIZE
        rest = self._up_to(limit + 1)
        if any(rest) or len(rest) > limit or self._inflate.unused_data or self._read():
            raise self.wrong("something follows its last member")
        if len(rest) < len(END) or not self._inflate.eof:
            raise self.wrong("it is cut off")

    def _up_to(self, count: int) -> bytes:
        content = bytearray()
        while len(content) < count and not self._inflate.eof and (packed := self._inflate.unconsumed_tail or self._read()):
            try:
                content += self._inflate.decompress(packed, count - len(content))
            except zlib.error as error:
                raise self.wrong(f"is not a {SUFFIX} file, or is damaged ({error})") from error
        return bytes(content)

    def _read(self) -> bytes:
        try:
            return self._stream.read(BLOCK_BYTES)
        except OSError as error:
            raise self.wrong(f"cannot be read ({error.strerror})") from error


def _extract(source: _Inflated, folder: Path, digest: str | None) -> Manifest:
    """Write the members of an archive into an empty folder that no other process uses."""
    manifest = _manifest(source)
    if digest is not None and manifest.digest != digest.lower():
        raise DigestError(source.path, manifest.digest, digest)
    _check_declared(source.path, manifest)
    total = sum(entry.bytes for entry in manifest.files.values())
    if total > MAX_RATIO * source.archive_bytes:
        raise source.wrong(f"declares {total:,} bytes in {source.archive_bytes:,}, more than {MAX_RATIO} to 1")
    if (free := free_bytes(folder)) is not None and total > free:
        raise OSError(ENOSPC, f"{total / 1e6:.0f} MB are needed and {free / 1e6:.0f} MB are free")
    _write(folder / MANIFEST_NAME, iter([manifest.content]))
    for name, entry in manifest.files.items():
        if (header := _header(source)) != (name, entry.bytes):
            raise source.wrong(f"has {header[0]!r} of {header[1]:,} bytes where its manifest declares {name!r} of {entry.bytes:,} bytes")
        if (sha256 := _write(folder / name, source.blocks(entry.bytes))) != entry.sha256:
            raise source.wrong(f"sha256 of {name} is {sha256[:12]}…, its manifest declares {entry.sha256[:12]}…")
    source.check_end()
    return manifest


def _manifest(source: _Inflated) -> Manifest:
    """Read the first member, which is the manifest."""
    _, size = _header(source, first=True)
    if size > MAX_MANIFEST_BYTES:
        raise source.wrong(f"its {MANIFEST_NAME} has {size:,} bytes, more than {MAX_MANIFEST_BYTES:,}")
    return parse_manifest(b"".join(source.blocks(size)), source.path / MANIFEST_NAME)


def _header(source: _Inflated, *, first: bool = False) -> tuple[str, int]:
    """Read the header of a regular file; return its name and size. The first file has to be the manifest."""
    block = source.exactly(tarfile.BLOCKSIZE)
    if not any(block):
        raise source.wrong("it ends before the last file that its manifest declares")
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise source.wrong(f"a member's header is damaged ({error})") from error
    if first and header.name != MANIFEST_NAME:
        raise source.wrong(f"does not start with {MANIFEST_NAME}, as packages do; if it contains a checkpoint, unpack it")
    if header.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or header.size < 0:
        raise source.wrong(f"member {header.name!r} is not a regular file")
    return header.name, header.size


def _check_declared(archive: Path, manifest: Manifest) -> None:
    """Check names, sizes and number of declared files; raise ArchiveError."""
    names = [MANIFEST_NAME, *manifest.files]
    if len(names) > MAX_MEMBERS:
        raise ArchiveError(archive, f"declares {len(names)} files, more than {MAX_MEMBERS}")
    if bad := [name for name in names if not NAME.fullmatch(name) or RESERVED.fullmatch(name)]:
        raise ArchiveError(archive, f"declares {bad[0]!r}, which is not a plain file name on every system")
    if len({name.lower() for name in names}) < len(names):
        raise ArchiveError(archive, "declares two files whose names differ in case only")
    if large := [name for name, entry in manifest.files.items() if entry.bytes > MAX_MEMBER_BYTES]:
        raise ArchiveError(archive, f"a file in {SUFFIX} has {MAX_MEMBER_BYTES:,} bytes at most; {large[0]} has more")


def _write(path: Path, blocks: Iterator[bytes]) -> str:
    """Write a new file and return its sha256."""
    digest = hashlib.sha256()
    with path.open("xb") as stream:
        for block in blocks:
            digest.update(block)
            stream.write(block)
        stream.flush()
        sync_file(stream.fileno(), path)
    return digest.hexdigest()


def _padding(size: int) -> int:
    return -size % tarfile.BLOCKSIZE
