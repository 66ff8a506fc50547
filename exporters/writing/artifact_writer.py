"""Write an artifact: a manifest and payload files go in; a reader sees the old artifact or the new one, never a mixture.

Payload files carry their hash in their name. A new artifact is made in a hidden folder beside its place and renamed when it is whole.
Replacing one writes the new files beside the old, then replaces manifest.json (the commit point), then removes what is no longer
referenced. Both happen under an exclusive lock beside the directory; what a killed writer left behind, the next one removes.
"""

import contextlib
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from runtimes.artifact.folder import Artifact, sha256_of
from runtimes.artifact.manifest import MANIFEST_NAME, FileEntry, Manifest
from runtimes.errors import OutputError, OutputExistsError
from runtimes.storage.atomic_write import locked, move_or_copy, sync_folder, write_atomically


def write_artifact(path: Path, manifest: Manifest, payload: Mapping[str, Path], *, overwrite: bool) -> Artifact:
    """Make the artifact directory `path` from payload files, or replace the one that is there.

    Args:
        path: The artifact's directory.
        manifest: Everything but `files`, which is filled in here.
        payload: Role → a file to move in; its stem and suffix name it.
        overwrite: Replace an artifact that exists.

    Raises:
        OutputExistsError: It exists and `overwrite` is false.
        OutputError: No room, no permission, or another process is writing it; what was there before is untouched.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path):
            guard_output(path, overwrite=overwrite)
            replacing = path.exists() and any(path.iterdir())
            folder = path if replacing else _emptied(path.with_name(f".{path.name}.partial"))
            placed: list[Path] = []
            try:
                files: dict[str, FileEntry] = {}
                for role, source in payload.items():
                    digest = sha256_of(source)
                    name = payload_name(source, digest)
                    files[name] = FileEntry(role=role, bytes=source.stat().st_size, sha256=digest)
                    found = (folder / name).exists()
                    if not found:
                        placed.append(folder / name)
                    if not found or sha256_of(folder / name) != digest:  # a damaged file is what the user may want to replace
                        move_or_copy(source, folder / name)
                written = replace(manifest, files=files)
                write_atomically(folder / MANIFEST_NAME, written.content)
                if not replacing:
                    if path.exists():
                        path.rmdir()
                    folder.rename(path)
                    sync_folder(path.parent)
            except BaseException:
                if not replacing:
                    shutil.rmtree(folder, ignore_errors=True)
                else:
                    current = (path / MANIFEST_NAME).read_bytes()  # the new one, if what failed or was interrupted came after it
                    for file in placed:
                        if file.name.encode() not in current:
                            file.unlink(missing_ok=True)
                raise
            with contextlib.suppress(OSError):  # it is written; what cannot be removed (Windows: a reader has it open) is the next one's
                for file in path.iterdir():
                    if file.name != MANIFEST_NAME and file.name not in files and file.is_file():
                        file.unlink(missing_ok=True)
            return Artifact(path, written)
    except OSError as error:
        if isinstance(error, OutputExistsError | OutputError):
            raise
        raise OutputError(path, error.strerror or str(error)) from error


def payload_name(source: Path, sha256: str) -> str:
    """Return the name of a file in an artifact: that of its role and of its content."""
    return f"{source.stem}-{sha256[:8]}{source.suffix}"


def guard_output(path: Path, *, overwrite: bool) -> None:
    """Refuse to touch what is there unless told to; even then only an artifact or an empty folder is replaced.

    Raises:
        OutputExistsError: Something is there and `overwrite` is false.
        OutputError: It is no artifact, or cannot be looked at.
    """
    try:
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            return
    except OSError as error:
        raise OutputError(path, error.strerror or str(error)) from error
    if not overwrite:
        raise OutputExistsError(path)
    if not (path / MANIFEST_NAME).is_file():
        raise OutputError(path, "it is not an artifact, so --overwrite does not replace it")


def _emptied(folder: Path) -> Path:
    """Make a folder, without what a killed writer left in it."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    return folder
