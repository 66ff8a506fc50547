"""Write a package: an archive of an artifact, its golden captions and its model card."""

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from runtimes.artifact.folder import Artifact, open_artifact
from runtimes.artifact.manifest import FileEntry, Manifest
from runtimes.engine_registry import load_target
from runtimes.errors import ArtifactCorruptError, OutputError, OutputExistsError, ToolkitError
from runtimes.loading import load
from runtimes.storage.archive import SUFFIX, check_suffix, write_archive
from runtimes.storage.atomic_write import locked, open_atomic, working_folder
from runtimes.storage.blocks import read_blocks
from runtimes.verification.golden import FILE, Sensitivity
from runtimes.verification.verify import verify
from toolkit.packaging.card import CARD, CARD_ROLE, card
from toolkit.packaging.goldens import golden_json
from toolkit.packaging.sensitivity import with_zeroed_weight

logger = logging.getLogger(__name__)

RECORDERS = {
    "caption": ("toolkit.packaging.goldens:record", "toolkit.packaging.goldens:notices"),
    "vqa": ("toolkit.packaging.goldens:record", "toolkit.packaging.goldens:notices"),
    "matching": ("toolkit.packaging.match_goldens:record_matches", "toolkit.packaging.match_goldens:notices_matches"),
}
"""Task → function (loaded artifact, path) that records golden results, and function (recording, damaged model) that returns whether they
differ."""

Files = Mapping[str, tuple[str, bytes]]
"""File name → (role, content)."""


def default_output(artifact: Path) -> Path:
    """Return the default path of a package: beside the artifact."""
    resolved = artifact.resolve()
    return resolved.with_name(resolved.name + SUFFIX)


def package(
    artifact_path: Path,
    output: Path,
    *,
    measured: str | None = None,
    wheels: Files | None = None,
    overwrite: bool = False,
    on_bytes: Callable[[int], None] = lambda count: None,
) -> str:
    """Verify an artifact, record its golden captions and write the package.

    Args:
        artifact_path: The artifact's folder.
        output: Path of the archive (`.tar.gz`).
        measured: Markdown table for the model card.
        wheels: Wheels and the requirements.txt that pins them.
        overwrite: Replace an existing archive.
        on_bytes: Called with the size in bytes of each block of the artifact that is written, for progress.

    Returns:
        The digest of the package's manifest (sha256, hexadecimal).

    Raises:
        OutputExistsError, RequestError: The path exists or has another suffix; raised before the artifact is run.
        OutputError: The archive cannot be written.
        ToolkitError: `runtimes.verification.verify.verify` raised it.
    """
    check_suffix(output)
    if output.exists() and not overwrite:
        raise OutputExistsError(output)
    verify(artifact_path)
    artifact = open_artifact(artifact_path)
    kept = {name: entry for name, entry in artifact.manifest.files.items() if not entry.optional}
    text = card(replace(artifact.manifest, files=kept), measured, offline=wheels is not None)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with locked(output):
            added = {**_goldens(artifact, output), CARD: (CARD_ROLE, text.encode()), **(wheels or {})}
            entries = {
                name: FileEntry(role=role, bytes=len(content), sha256=hashlib.sha256(content).hexdigest(), optional=True)
                for name, (role, content) in sorted(added.items())
            }
            manifest = replace(artifact.manifest, files={**kept, **entries})
            with open_atomic(output) as stream:
                write_archive(stream, output, manifest, _content(artifact, manifest, added, on_bytes))
    except ToolkitError:
        raise
    except OSError as error:
        raise OutputError(output, error.strerror or str(error)) from error
    return manifest.digest


def _goldens(artifact: Artifact, output: Path) -> Files:
    """Record golden results, and measure with a damaged copy of the artifact, beside the output, whether they notice damage."""
    task = artifact.manifest.task
    record, notices = (load_target(target) for target in RECORDERS[task])
    recording = record(load(artifact.path, task=task, device="cpu", draft=False), artifact.path)
    with working_folder(output.parent, f".{output.name}.copy-") as copy:
        layer = with_zeroed_weight(artifact, copy)
        sensitivity = Sensitivity(layer=layer, noticed=notices(recording, load(copy, task=task, device="cpu", draft=False)))
    if not sensitivity.noticed:
        logger.warning(
            "%s: the golden results are the same if 0.1%% of %s is set to zero; only the hashes detect such damage", artifact.path, layer
        )
    return {**recording.files, FILE: golden_json(recording.golden, sensitivity)}


def _content(artifact: Artifact, manifest: Manifest, added: Files, on_bytes: Callable[[int], None]) -> Iterator[Iterator[bytes]]:
    for name, entry in manifest.files.items():
        yield iter([added[name][1]]) if name in added else _hashed(artifact.path / name, entry, on_bytes)


def _hashed(path: Path, entry: FileEntry, on_bytes: Callable[[int], None]) -> Iterator[bytes]:
    """Yield the blocks of a verified file; raise ArtifactCorruptError at the end if its hash has changed since."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            for block in read_blocks(stream):
                digest.update(block)
                yield block
                on_bytes(len(block))
    except OSError as error:
        raise ArtifactCorruptError(path, f"cannot be read ({error.strerror})") from error
    if digest.hexdigest() != entry.sha256:
        raise ArtifactCorruptError(path, "changed while it was packaged")
