"""Describe an artifact, a package or a checkpoint from its metadata. Weights are not hashed."""

import re
from pathlib import Path
from typing import Any

from exporters.checkpoint.refusals import is_weight_file, refuse_file, refuse_folder
from runtimes.artifact import json_dataclass
from runtimes.artifact.manifest import MANIFEST_NAME, Manifest, read_manifest
from runtimes.errors import RequestError
from runtimes.storage.archive import SUFFIX, read_archive_manifest


def describe(path: Path, adapter: Path | None = None) -> dict[str, Any]:
    """Return the metadata of a path as JSON values. "kind" is "artifact", "package" or "checkpoint".

    An artifact and a package have every field of the manifest, "digest" (sha256 of the bytes of manifest.json), "bytes" (total size) and
    "components" (role → size in bytes, from the manifest). For a checkpoint see `exporters.checkpoint.summary`; with an adapter, it has
    "adapter".

    Raises:
        RequestError: The path is none of these.
        ManifestError, ManifestVersionError, ArchiveError, CheckpointError: Its metadata cannot be read.
    """
    if adapter is not None:
        if (description := describe(path))["kind"] != "checkpoint":
            raise RequestError(f"{path}: --adapter belongs to a checkpoint, and this is {description['kind']}")
        from exporters.checkpoint.summary import summarize_adapter

        return {**description, "adapter": summarize_adapter(adapter)}
    if (path / MANIFEST_NAME).is_file():
        return _manifest("artifact", path, read_manifest(path / MANIFEST_NAME))
    if path.is_file() and path.name.endswith(SUFFIX):
        return _manifest("package", path, read_archive_manifest(path)) | {"archive_bytes": path.stat().st_size}
    if (path / "config.json").is_file():
        from exporters.checkpoint.summary import summarize

        return {"kind": "checkpoint", "path": str(path), **summarize(path)}
    if is_weight_file(str(path)):
        from exporters.checkpoint.summary import summarize_file

        return {"kind": "checkpoint", "path": str(path), **summarize_file(path)}
    if path.is_dir() and (problem := refuse_folder(path)):
        raise RequestError(f"{path}: {problem}")
    if not path.exists():
        hub_id = re.fullmatch(r"[\w.-]+/[\w.-]+", str(path))
        cure = "; info reads files only: for a model of a hub, download it first, or run toolkit export" if hub_id else ""
        raise RequestError(f"{path}: no such file or folder{cure}")
    if names := sorted(child.parent.name for child in path.glob(f"[!.]*/{MANIFEST_NAME}")):
        raise RequestError(f"{path}: contains several artifacts; name one of {', '.join(names)}")
    if path.is_file() and (problem := refuse_file(path)):
        raise RequestError(f"{path}: {problem}")
    raise RequestError(
        f"{path}: is neither an artifact ({MANIFEST_NAME}) nor a package (*{SUFFIX}) nor a checkpoint (config.json, or one file of weights)"
    )


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
