"""Describe what is at a path, from its metadata alone: an artifact, a package, or a checkpoint. No weights are read or hashed."""

from pathlib import Path
from typing import Any

from runtimes.artifact import json_dataclass
from runtimes.artifact.manifest import MANIFEST_NAME, Manifest, read_manifest
from runtimes.errors import RequestError
from runtimes.storage.archive import SUFFIX, read_archive_manifest


def describe(path: Path) -> dict[str, Any]:
    """Return what is at a path, as JSON values. "kind" is "artifact", "package" or "checkpoint".

    Of an artifact and a package: every field of the manifest, "digest" (sha256 of the bytes of manifest.json), "bytes" and "components"
    (role → bytes, as the manifest declares them). Of a checkpoint: see `exporters.checkpoint.summary`.

    Raises:
        RequestError: The path is none of these.
        ManifestError, ManifestVersionError, ArchiveError, CheckpointError: It is one, and cannot be read.
    """
    if (path / MANIFEST_NAME).is_file():
        return _manifest("artifact", path, read_manifest(path / MANIFEST_NAME))
    if path.is_file() and path.name.endswith(SUFFIX):
        return _manifest("package", path, read_archive_manifest(path)) | {"archive_bytes": path.stat().st_size}
    if (path / "config.json").is_file():
        from exporters.checkpoint.summary import summarize

        return {"kind": "checkpoint", "path": str(path), **summarize(path)}
    if not path.exists():
        raise RequestError(f"{path}: no such file or folder")
    if names := sorted(child.parent.name for child in path.glob(f"[!.]*/{MANIFEST_NAME}")):
        raise RequestError(f"{path}: holds several artifacts; name one of {', '.join(names)}")
    raise RequestError(f"{path}: is no artifact ({MANIFEST_NAME}), no package (*{SUFFIX}) and no checkpoint (config.json)")


def _manifest(kind: str, path: Path, manifest: Manifest) -> dict[str, Any]:
    components = {entry.role: entry.bytes for entry in manifest.files.values()}
    return {
        "kind": kind,
        "path": str(path),
        "digest": manifest.digest,
        "bytes": len(manifest.content) + sum(components.values()),
        "components": components,
        **json_dataclass.dump(manifest),
    }
