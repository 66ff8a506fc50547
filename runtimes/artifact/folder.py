"""An artifact on disk: a folder with a manifest. `exporters.writing.artifact_writer` writes one."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from runtimes.artifact.manifest import MANIFEST_NAME, Manifest, read_manifest
from runtimes.errors import ArtifactCorruptError, ArtifactMissingError


@dataclass(frozen=True)
class Artifact:
    """A directory with a readable manifest."""

    path: Path
    manifest: Manifest

    @property
    def total_bytes(self) -> int:
        """Size of the model: its declared files and the manifest, without what packaging adds and what else is in the folder."""
        return sum(self.component_bytes.values())

    @property
    def component_bytes(self) -> dict[str, int]:
        """Role → size of its file as declared, without optional files; and the manifest's own size."""
        declared = {entry.role: entry.bytes for entry in self.manifest.files.values() if not entry.optional}
        return declared | {"manifest": self.manifest_path.stat().st_size}

    @property
    def manifest_path(self) -> Path:
        """Where its manifest is."""
        return self.path / MANIFEST_NAME

    def path_of(self, role: str) -> Path:
        """Return the path of the file that has a role.

        The file is not checked. Code that runs an artifact reads it through `runtimes.artifact.verified_files.open_verified`.


        Raises:
            ArtifactCorruptError: No file has it.
        """
        try:
            return self.path / self.manifest.file_of(role)
        except KeyError as error:
            raise ArtifactCorruptError(self.manifest_path, f"names no file with the role '{role}'") from error


def open_artifact(path: Path) -> Artifact:
    """Read the manifest of an artifact directory; files are checked when they are used.

    Raises:
        ArtifactMissingError: There is no manifest.
        ManifestError, ManifestVersionError: It cannot be read.
    """
    manifest_path = path / MANIFEST_NAME
    if not manifest_path.is_file():
        raise ArtifactMissingError(path)
    return Artifact(path, read_manifest(manifest_path))


def sha256_of(path: Path) -> str:
    """Hash a file block by block."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
