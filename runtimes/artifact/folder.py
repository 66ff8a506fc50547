"""An artifact on disk: a folder with a manifest, written by `exporters.writing.artifact_writer`."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from runtimes.artifact.manifest import MANIFEST_NAME, Manifest, read_manifest
from runtimes.errors import ArtifactCorruptError, ArtifactMissingError


@dataclass(frozen=True)
class Artifact:
    """A folder and its manifest."""

    path: Path
    manifest: Manifest

    @property
    def total_bytes(self) -> int:
        """Size of the model: its declared files without the optional ones, and the manifest."""
        return sum(self.component_bytes.values())

    @property
    def component_bytes(self) -> dict[str, int]:
        """Role → declared size of its file, without optional files; and "manifest" → size of the manifest."""
        declared = {entry.role: entry.bytes for entry in self.manifest.files.values() if not entry.optional}
        return declared | {"manifest": self.manifest_path.stat().st_size}

    @property
    def manifest_path(self) -> Path:
        """Path of the manifest."""
        return self.path / MANIFEST_NAME

    def path_of(self, role: str) -> Path:
        """Return the path of the file that has a role.

        The file is not checked. Code that runs an artifact reads it through `runtimes.artifact.verified_files.open_verified`.


        Raises:
            ArtifactCorruptError: No file has the role.
        """
        try:
            return self.path / self.manifest.file_of(role)
        except KeyError as error:
            raise ArtifactCorruptError(self.manifest_path, f"declares no file with the role '{role}'") from error


def open_artifact(path: Path) -> Artifact:
    """Read the manifest of an artifact's folder. The other files are checked when they are opened.

    Raises:
        ArtifactMissingError: There is no manifest.
        ManifestError, ManifestVersionError: The manifest is invalid.
    """
    manifest_path = path / MANIFEST_NAME
    if not manifest_path.is_file():
        raise ArtifactMissingError(path)
    return Artifact(path, read_manifest(manifest_path))


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
