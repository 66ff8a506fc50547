"""Write, read and open the folder of a prepared peer: `peer.json` with its description, and the files that it needs to run."""

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
    """The inputs of `prepare`."""

    checkpoint: "Checkpoint"
    graphs: Artifact
    """The onnx-fp32 artifact of that checkpoint."""
    calibration: Sequence[Path]
    """Images for the calibration of activations; they are not measured."""


@dataclass(frozen=True, kw_only=True)
class PeerFolder:
    """The content of peer.json."""

    name: str
    checkpoint_sha256: str
    manifest: Manifest
    """The manifest of the artifact whose image, token and length settings the peer uses."""


def prepare(peer: Peer, sources: Sources, output: Path, *, overwrite: bool) -> Path:
    """Write a peer's folder by atomic rename and return its path.

    Args:
        peer: The tool to prepare.
        sources: The checkpoint and the artifact to prepare it from.
        output: Folder in which the peer's folder is written.
        overwrite: Replace an existing folder.

    Raises:
        OutputExistsError: The folder exists, and `overwrite` is false.
        MissingDependencyError: A package of the extra `peers` is not installed.
    """
    path = output / peer.name
    if path.exists() and not overwrite:
        raise OutputExistsError(path)
    write = _function(peer.prepare, peer.name)
    output.mkdir(parents=True, exist_ok=True)
    with working_folder(output, ".peer-") as working:
        folder = working / peer.name
        folder.mkdir()
        shutil.copyfile(sources.graphs.path_of("tokenizer"), folder / TOKENIZER_NAME)
        write(sources, folder)
        content = PeerFolder(name=peer.name, checkpoint_sha256=sources.checkpoint.source.sha256, manifest=sources.graphs.manifest)
        (folder / PEER_NAME).write_bytes(json_dataclass.canonical_json(json_dataclass.dump(content)))
        if path.exists():
            shutil.rmtree(path)
        folder.rename(path)
    return path


def read_folder(path: Path) -> PeerFolder:
    """Read peer.json.

    Raises:
        ArtifactCorruptError: It cannot be read, or is not a peer.json.
    """
    try:
        with (path / PEER_NAME).open("rb") as stream:
            content = stream.read(MAX_MANIFEST_BYTES)
        peer, problems = json_dataclass.load(PeerFolder, json_dataclass.parse(content))
    except (OSError, ValueError) as error:
        raise ArtifactCorruptError(path / PEER_NAME, f"cannot be read: {error}") from error
    if peer is None:
        raise ArtifactCorruptError(path / PEER_NAME, "; ".join(problems))
    return peer


def folder_bytes(path: Path) -> int:
    """Return the size of all files of a peer's folder."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def opener(path: Path) -> Callable[[Path, int], Any]:
    """Import the libraries of a prepared peer and return the function that opens it.

    Raises:
        MissingDependencyError: A package of the extra `peers` is not installed.
    """
    peer = find_peer(read_folder(path).name)
    return _function(peer.open, peer.name)


def _function(target: str, name: str) -> Callable[..., Any]:
    try:
        function: Callable[..., Any] = load_target(target)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(error.name or "a package", name, "peers") from error
    return function
