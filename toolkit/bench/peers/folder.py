"""A prepared peer is a folder: `peer.json` says whose it is, the other files are what it needs to run.

Sources go in, a folder comes out; a folder goes in, a captioner that the benchmark can measure comes out.
"""

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtimes.artifact import json_dataclass
from runtimes.artifact.folder import Artifact
from runtimes.artifact.manifest import MAX_MANIFEST_BYTES, Manifest
from runtimes.engine_registry import load_target
from runtimes.errors import ArtifactCorruptError, MissingDependencyError, OutputExistsError
from runtimes.storage.atomic_write import working_folder
from toolkit.bench.cases import PEER_NAME
from toolkit.bench.peers.catalogue import Peer, find_peer

if TYPE_CHECKING:
    from exporters.checkpoint.checkpoint import Checkpoint

logger = logging.getLogger(__name__)

TOKENIZER_NAME = "tokenizer.json"


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What peers are made from."""

    checkpoint: "Checkpoint"
    graphs: Artifact
    """Our onnx-fp32 artifact of that checkpoint."""
    calibration: Sequence[Path]
    """Images that activations are calibrated on; none of them is measured."""


@dataclass(frozen=True, kw_only=True)
class PeerFolder:
    """What peer.json says."""

    name: str
    checkpoint_sha256: str
    manifest: Manifest
    """Of the artifact whose image, token and length rules the peer shares."""


def prepare(peer: Peer, sources: Sources, output: Path, *, overwrite: bool) -> Path:
    """Make a peer's folder and return its path; it is whole or not there.

    Raises:
        OutputExistsError: It is there, and `overwrite` is false.
        MissingDependencyError: A package of the extra is not installed.
    """
    path = output / peer.name
    if path.exists() and not overwrite:
        raise OutputExistsError(path)
    write = _function(peer.prepare, peer.name)
    output.mkdir(parents=True, exist_ok=True)
    with working_folder(output, ".peer-") as working:
        made = working / peer.name
        made.mkdir()
        shutil.copyfile(sources.graphs.path_of("tokenizer"), made / TOKENIZER_NAME)
        write(sources, made)
        written = PeerFolder(name=peer.name, checkpoint_sha256=sources.checkpoint.source.sha256, manifest=sources.graphs.manifest)
        (made / PEER_NAME).write_bytes(json_dataclass.canonical_json(json_dataclass.dump(written)))
        if path.exists():
            shutil.rmtree(path)
        made.rename(path)
    return path


def read_folder(path: Path) -> PeerFolder:
    """Read peer.json.

    Raises:
        ArtifactCorruptError: It is not what `prepare` writes.
    """
    try:
        with (path / PEER_NAME).open("rb") as stream:
            content = stream.read(MAX_MANIFEST_BYTES)
        found, problems = json_dataclass.load(PeerFolder, json_dataclass.parse(content))
    except (OSError, ValueError) as error:
        raise ArtifactCorruptError(path / PEER_NAME, f"cannot be read: {error}") from error
    if found is None:
        raise ArtifactCorruptError(path / PEER_NAME, "; ".join(problems))
    return found


def folder_bytes(path: Path) -> int:
    """Size of everything that a peer needs, as an artifact's size counts every file."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def opener(path: Path) -> Callable[[Path, int], Any]:
    """Import what a prepared peer needs and return the function that opens it.

    Raises:
        MissingDependencyError: A package of the extra is not installed.
    """
    peer = find_peer(read_folder(path).name)
    return _function(peer.open, peer.name)


def _function(target: str, name: str) -> Callable[..., Any]:
    try:
        found: Callable[..., Any] = load_target(target)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(error.name or "a package", name, "peers") from error
    return found
