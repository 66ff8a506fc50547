"""Write an artifact atomically: a reader sees either the old artifact or the new one, never a mixture.

The name of a payload file contains its hash. A new artifact is written to a hidden folder beside its destination, which is renamed at the
end. To replace an artifact, the new files are written beside the old ones, manifest.json is replaced (the commit point), and unreferenced
files are removed. The writer takes an exclusive lock beside the directory. The next writer removes the leftovers of a killed one.
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
    """Move payload files into an artifact directory and write its manifest.

    Args:
        path: The artifact's directory.
        manifest: The manifest; its `files` are replaced by those of `payload`.
        payload: Role → file, which is moved. The name in the artifact is the file's stem, the start of its hash, and its suffix.
        overwrite: Replace an existing artifact.

    Returns:
        The artifact as written.

    Raises:
        OutputExistsError: The artifact exists and `overwrite` is false.
        OutputError: The disk is full, permission is missing, or another process writes the artifact. An existing artifact is unchanged.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path):
            guard_output(path, overwrite=overwrite)
            replacing = path.exists() and any(path.iterdir())
            folder = path if replacing else _emptied(path.with_name(f".{path.name}.partial"))
            new_files: list[Path] = []
            try:
                files: dict[str, FileEntry] = {}
                for role, source in payload.items():
                    digest = sha256_of(source)
                    name = payload_name(source, digest)
                    files[name] = FileEntry(role=role, bytes=source.stat().st_size, sha256=digest)
                    exists = (folder / name).exists()
                    if not exists:
                        new_files.append(folder / name)
                    if not exists or sha256_of(folder / name) != digest:  # the user may overwrite the artifact because a file is damaged
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
                    current = (path / MANIFEST_NAME).read_bytes()  # the new manifest, if the failure came after the commit point
                    for file in new_files:
                        if file.name.encode() not in current:
                            file.unlink(missing_ok=True)
                raise
            with contextlib.suppress(OSError):  # on Windows, a file that a reader has open cannot be removed; the next writer removes it
                for file in path.iterdir():
                    if file.name != MANIFEST_NAME and file.name not in files and file.is_file():
                        file.unlink(missing_ok=True)
            return Artifact(path, written)
    except OSError as error:
        if isinstance(error, OutputExistsError | OutputError):
            raise
        raise OutputError(path, error.strerror or str(error)) from error


def payload_name(source: Path, sha256: str) -> str:
    """Return a file's name in an artifact: its stem, the first 8 digits of its hash, and its suffix."""
    return f"{source.stem}-{sha256[:8]}{source.suffix}"


def guard_output(path: Path, *, overwrite: bool) -> None:
    """Check that an artifact may be written to `path`: it is missing, an empty folder, or an artifact that may be replaced.

    Raises:
        OutputExistsError: The path exists and `overwrite` is false.
        OutputError: The path exists and is not an artifact, or it cannot be read.
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
    """Make an empty folder; remove what a killed writer left in it."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    return folder
