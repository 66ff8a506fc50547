"""A package as one file: members go in, an archive comes out; an archive goes in, a folder comes out that holds what its manifest declares.

Nothing here is taken from `tarfile` or `zipfile`, whose extraction has been talked out of its folder more than once. The manifest is the
first member; it fixes which members follow, in which order and of which size and hash, so each is checked while it streams, and nothing
is believed that an archive says of itself. Bytes reach a hidden folder, which gets its name when all of it was right.
"""

import hashlib
import re
import shutil
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from errno import ENOSPC
from os import fsync
from pathlib import Path
from typing import BinaryIO

from runtimes.artifact.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, Manifest, parse_manifest
from runtimes.errors import ArchiveError, DigestError, OutputError, OutputExistsError, ToolkitError
from runtimes.storage.archive_formats import FORMS, Form, Member
from runtimes.storage.atomic_write import locked, sync_folder, working_folder


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an archive may hold; the writer keeps to it as the reader does."""

    members: int = 64
    manifest_bytes: int = MAX_MANIFEST_BYTES
    ratio: int = 200
    """Bytes that come out per byte of the archive."""


LIMITS = Limits()
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
"""A name that is one file beside the manifest on every system: ASCII, no separator, not hidden."""
RESERVED = re.compile(r"(?i:con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?|.*\.")
"""Windows takes these for devices, or drops the dot."""


def form_of(path: Path) -> Form:
    """Return the kind of archive that a file's name asks for.

    Raises:
        ArchiveError: It ends in none of them.
    """
    for form in FORMS:
        if path.name.endswith(form.suffix):
            return form
    raise ArchiveError(path, f"an archive's name ends in {' or '.join(form.suffix for form in FORMS)}")


def is_archive(path: Path) -> bool:
    """Whether a file starts as an archive does.

    Raises:
        ArchiveError: It cannot be read.
    """
    if not path.is_file():
        return False
    with _Source(path) as source:
        start = source.read(4)
    return any(start.startswith(form.magic) for form in FORMS)


def write_archive(stream: BinaryIO, path: Path, manifest: Manifest, members: Iterable[Member]) -> None:
    """Write a package: the manifest, then the members that it declares, in its order.

    Args:
        stream: Where to; it can be sought in.
        path: What it will be called; its suffix says which kind of archive.
        manifest: Sealed.
        members: Content of the declared files.

    Raises:
        ArchiveError: This kind of archive cannot hold them.
    """
    form, content = form_of(path), manifest.to_bytes()
    _check_declared(path, manifest, len(content))
    if long := [name for name in manifest.files if len(name) > form.longest_name]:
        raise ArchiveError(path, f"{form.suffix} takes no name of more than {form.longest_name} bytes, such as {long[0]}")
    if _total(manifest) + sum(map(len, manifest.files)) * 2 + len(content) + (1 << 16) > form.most_bytes:
        raise ArchiveError(path, f"{form.suffix} holds {form.most_bytes:,} bytes at most")
    form.write(stream, [Member(name=MANIFEST_NAME, size=len(content), blocks=iter([content])), *members])


def unpack(archive: Path, target: Path, sha256: str | None = None) -> Manifest:
    """Make the folder `target` from an archive; it appears when all of it was checked.

    Args:
        archive: What `toolkit package` wrote.
        target: A folder that is not there, or empty.
        sha256: The digest of the manifest that the sender told; None if there is none to compare.

    Raises:
        ArchiveError: It is not what `toolkit package` writes, or is damaged.
        ManifestError, ManifestVersionError: Its manifest cannot be read.
        DigestError: Its manifest is not the sender's.
        OutputExistsError, OutputError: The folder cannot be made; nothing is left behind.
    """
    if not archive.is_file():
        raise ArchiveError(archive, "there is no such file")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target), working_folder(target.parent, f".{target.name}.partial-") as folder:
            if target.exists() and (not target.is_dir() or any(target.iterdir())):
                raise OutputExistsError(target, "Unpack into another folder (-o DIR) or remove it first.")
            with _Source(archive) as source:
                manifest = _extract(source, folder, sha256)
            folder.chmod(0o755)
            if target.exists():
                target.rmdir()
            folder.rename(target)
            sync_folder(target.parent)
            return manifest
    except ToolkitError:
        raise
    except (ValueError, zlib.error) as error:
        raise ArchiveError(archive, str(error)) from error
    except OSError as error:
        raise OutputError(target, error.strerror or str(error)) from error


class _Source:
    """An archive that is read; what goes wrong there is its fault, not the output's."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._stream = path.open("rb")
            self.bytes = path.stat().st_size
        except OSError as error:
            raise ArchiveError(path, f"cannot be read ({error.strerror})") from error

    def __enter__(self) -> "_Source":
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def read(self, count: int) -> bytes:
        try:
            return self._stream.read(count)
        except OSError as error:
            raise ArchiveError(self.path, f"cannot be read ({error.strerror})") from error

    def form(self) -> Form:
        """Tell its kind by its first bytes, and go back to them."""
        start = self.read(4)
        self._stream.seek(0)
        for form in FORMS:
            if start.startswith(form.magic):
                return form
        raise ArchiveError(self.path, f"is no {' or '.join(form.suffix for form in FORMS)} file")


def _extract(source: _Source, folder: Path, sha256: str | None) -> Manifest:
    """Write an archive's members into an empty folder that nobody else looks at."""
    archive, members = source.path, source.form().read(source)
    manifest, content = _first(archive, members)
    if sha256 is not None and manifest.digest != sha256.lower():
        raise DigestError(archive, manifest.digest, sha256)
    _check_declared(archive, manifest, len(content))
    total = _total(manifest)
    if total > LIMITS.ratio * source.bytes:
        raise ArchiveError(archive, f"claims {total:,} bytes from {source.bytes:,}, more than {LIMITS.ratio} to 1")
    if total > (free := shutil.disk_usage(folder).free):
        raise OSError(ENOSPC, f"{total / 1e6:.0f} MB are needed and {free / 1e6:.0f} MB are free")
    _write(folder / MANIFEST_NAME, iter([content]))
    for name, entry in manifest.files.items():
        member = next(members, None)
        if member is None or (member.name, member.size) != (name, entry.bytes):
            found = "nothing more" if member is None else f"{member.name!r} of {member.size:,} bytes"
            raise ArchiveError(archive, f"holds {found} where its manifest declares {name!r} of {entry.bytes:,} bytes")
        if (digest := _write(folder / name, member.blocks)) != entry.sha256:
            raise ArchiveError(archive, f"sha256 of {name} is {digest[:12]}…, its manifest says {entry.sha256[:12]}…")
    if (member := next(members, None)) is not None:
        raise ArchiveError(archive, f"holds {member.name!r}, which its manifest does not declare")
    return manifest


def _first(archive: Path, members: Iterator[Member]) -> tuple[Manifest, bytes]:
    """Read the manifest, which must be the first member."""
    member = next(members, None)
    if member is None or member.name != MANIFEST_NAME:
        raise ArchiveError(archive, f"does not start with {MANIFEST_NAME}")
    if member.size > LIMITS.manifest_bytes:
        raise ArchiveError(archive, f"its {MANIFEST_NAME} claims {member.size:,} bytes, more than {LIMITS.manifest_bytes:,}")
    content = b"".join(member.blocks)
    return parse_manifest(content, archive / MANIFEST_NAME), content


def _check_declared(archive: Path, manifest: Manifest, manifest_bytes: int) -> None:
    if 1 + len(manifest.files) > LIMITS.members:
        raise ArchiveError(archive, f"declares {1 + len(manifest.files)} files, more than {LIMITS.members}")
    if manifest_bytes > LIMITS.manifest_bytes:
        raise ArchiveError(archive, f"its manifest has {manifest_bytes:,} bytes, more than {LIMITS.manifest_bytes:,}")
    names = [MANIFEST_NAME, *manifest.files]
    if bad := [name for name in names if not NAME.fullmatch(name) or RESERVED.fullmatch(name)]:
        raise ArchiveError(archive, f"declares {bad[0]!r}, which is no plain file name on every system")
    if len({name.lower() for name in names}) < len(names):
        raise ArchiveError(archive, "declares two files whose names differ in case only")


def _total(manifest: Manifest) -> int:
    return sum(entry.bytes for entry in manifest.files.values())


def _write(path: Path, blocks: Iterator[bytes]) -> str:
    """Write a new file and return its hash."""
    digest = hashlib.sha256()
    with path.open("xb") as stream:
        for block in blocks:
            digest.update(block)
            stream.write(block)
        stream.flush()
        fsync(stream.fileno())
    return digest.hexdigest()
