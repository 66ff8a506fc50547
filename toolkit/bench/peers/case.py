"""The benchmark case of a prepared peer."""

from dataclasses import dataclass
from pathlib import Path

from toolkit.bench.cases import Opened, Opener, foreign_subject
from toolkit.bench.job import CaseJob, CaseResult
from toolkit.bench.peers.catalogue import find_peer
from toolkit.bench.peers.folder import folder_bytes, opener, read_folder
from toolkit.records.record import Arithmetic, Subject


@dataclass(frozen=True, kw_only=True)
class PeerCase:
    """A prepared peer; see `toolkit.bench.cases.Case`."""

    name: str
    path: Path
    checkpoint_sha256: str
    device: str = "cpu"

    @property
    def streams(self) -> bool:
        """See `Case`."""
        return find_peer(self.name).streams

    def open(self) -> tuple[str, str]:
        """See `Case`."""
        return "toolkit.bench.peers.case:peer_opener", str(self.path)

    def subject(self, result: CaseResult) -> Subject:
        """See `Case`."""
        size = folder_bytes(self.path)
        return foreign_subject(find_peer(self.name).runtime, self.checkpoint_sha256, size, size)

    def arithmetic(self) -> Arithmetic | None:
        """Return None: the work of a peer's graphs is unknown."""
        return None


def read_case(path: Path) -> PeerCase:
    """Return the case of a prepared peer's folder.

    Raises:
        ArtifactCorruptError: peer.json cannot be read.
    """
    peer = read_folder(path)
    return PeerCase(name=peer.name, path=path, checkpoint_sha256=peer.checkpoint_sha256)


def peer_opener(path: Path, job: CaseJob) -> Opener:
    """Import the peer's libraries and return a function that opens it.

    Raises:
        MissingDependencyError: A package of the extra `peers` is not installed.
    """
    open_peer = opener(path)

    def opened() -> Opened:
        model, info = open_peer(path, job.threads)
        return Opened(model=model, versions=info.versions, providers=info.providers)

    return opened
