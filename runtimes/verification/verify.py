"""Verify an artifact on the machine where it is to run: a folder or an archive goes in; what was found comes out, or an error.

In this order: the manifest, its digest, exactly the declared files, their sizes and hashes; the graphs, opened from the bytes that were
hashed; the golden captions. Each run also proves that it could have failed: a flipped bit must be caught by the hash, and a thousandth
of a layer zeroed must change a golden caption or its logits. Nothing here needs more than captioning does.
"""

import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runtimes.artifact.folder import Artifact, open_artifact
from runtimes.artifact.manifest import MANIFEST_NAME, FileEntry
from runtimes.artifact.verified_files import opened
from runtimes.errors import ArtifactCorruptError, DigestError, GoldenError, OutputError, ToolkitError
from runtimes.loading import load
from runtimes.storage.archive import unpack
from runtimes.verification import fault_injection, sandbox
from runtimes.verification.golden import Replay, read_golden, replay

BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was found; everything that was looked at is right."""

    artifact: str
    digest: str
    """Of the manifest; whoever knows it from the sender knows that the artifact is the sender's."""
    authentic: bool
    """Whether the digest was compared with one that was told."""
    files: int
    bytes: int
    flipped_bit: str
    """The file in which a flipped bit was caught."""
    tried_apart: bool
    """Whether the graphs were opened in a process of their own first."""
    providers: tuple[str, ...]
    golden: Replay | None
    """None: the artifact holds no golden captions."""
    zeroed: str | None
    """The layer of which a thousandth was zeroed."""
    golden_noticed: bool | None
    """Whether golden captions or logits changed then; if not, they are weak."""


def verify(path: Path, *, digest: str | None = None, untrusted: bool = False, threads: int | None = None) -> Report:
    """Verify an artifact or a package.

    Args:
        path: A folder, or an archive that `toolkit package` wrote, which is unpacked for the while.
        digest: Expected sha256 of the manifest, as the sender published it.
        untrusted: Open the graphs in a process of their own first, with limits of memory and time.
        threads: CPU threads.

    Raises:
        ArtifactMissingError, ManifestError, ManifestVersionError, ArchiveError, ArtifactCorruptError: It is not what it declares.
        DigestError: It is not what the sender sent.
        ArtifactCrashError: Its graphs crash or exhaust what runs them.
        GoldenError: It captions otherwise here.
        OutputError: There is no room for the copies that are looked at.
    """
    try:
        if not path.is_file():
            return _verify(path, digest, threads, untrusted=untrusted)
        with tempfile.TemporaryDirectory(prefix="toolkit-verify-") as folder:
            unpacked = Path(folder) / path.name.split(".")[0]
            unpack(path, unpacked, digest)
            return _verify(unpacked, digest, threads, untrusted=untrusted)
    except OSError as error:  # of the copies that are made and removed
        if isinstance(error, ToolkitError):
            raise
        raise OutputError(Path(tempfile.gettempdir()), error.strerror or str(error)) from error


def _verify(path: Path, digest: str | None, threads: int | None, *, untrusted: bool) -> Report:
    artifact = open_artifact(path)
    manifest = artifact.manifest
    if digest is not None and manifest.digest != digest.lower():
        raise DigestError(path, manifest.digest, digest)
    check_files(artifact)
    flipped = _flip_a_bit(artifact)
    if untrusted:
        sandbox.open_apart(artifact)
    captioner = load(path, device="cpu", threads=threads)
    providers = captioner.session.info().providers
    golden = read_golden(artifact)
    found, layer, noticed = None, None, None
    if golden is not None:
        found = replay(captioner, golden, artifact)
        if found.differences:
            raise GoldenError(path, "; ".join(found.differences))
        del captioner
        with fault_injection.zeroed_layer(artifact) as (damaged, layer):
            noticed = bool(replay(load(damaged, device="cpu", threads=threads), golden, artifact).differences)
    return Report(
        artifact=manifest.name,
        digest=manifest.digest,
        authentic=digest is not None,
        files=len(manifest.files),
        bytes=artifact.total_bytes,
        flipped_bit=flipped,
        tried_apart=untrusted,
        providers=providers,
        golden=found,
        zeroed=layer,
        golden_noticed=noticed,
    )


def summary(report: Report) -> list[str]:
    """Return a report for people, a line per check."""
    golden, compared = report.golden, "as expected" if report.authentic else "not compared with the sender's (--digest)"
    lines = [
        f"{report.artifact}: whole",
        f"  digest    {report.digest}, {compared}",
        f"  files     {report.files} and the manifest, {report.bytes / 1e6:.1f} MB: sizes and hashes as declared, nothing else is there",
        f"            a flipped bit in a copy of {report.flipped_bit} was caught",
        f"  model     {'opened in a process of its own, then here' if report.tried_apart else 'opened'} ({', '.join(report.providers)}); "
        "a graph's inputs, outputs and operators are as declared",
    ]
    if golden is None:
        return [*lines, "  captions  none to compare with: only a package (toolkit package) carries golden captions"]
    where = "this kind of machine" if golden.same_machine else "another kind of machine"
    lines += [
        f"  captions  {golden.equal} of {golden.captions} as recorded on {where}, {len(golden.ties)} ties",
        *(f"            tie: {tie}" for tie in golden.ties),
        f"  logits    differ by {golden.logits_difference:.2g} at most, {golden.logits_bound:g} is allowed",
    ]
    if report.golden_noticed:
        return [*lines, f"            golden captions caught a thousandth of {report.zeroed} zeroed"]
    return [*lines, f"            WEAK: golden captions did not notice a thousandth of {report.zeroed} zeroed; hashes do"]


def check_files(artifact: Artifact) -> None:
    """Compare the folder with the manifest: exactly the declared files, each a regular one of the declared size and hash.

    Raises:
        ArtifactCorruptError: With every file that is missing, changed or not declared.
    """
    declared = artifact.manifest.files
    try:
        extra = {file.name for file in artifact.path.iterdir()} - {MANIFEST_NAME, *declared}
    except OSError as error:
        raise ArtifactCorruptError(artifact.path, f"cannot be read ({error.strerror})") from error
    problems = [f"{name!r} is not declared" for name in sorted(extra)]
    with opened(artifact) as files:
        for name, entry in declared.items():
            try:
                files.stream(entry.role)
            except ArtifactCorruptError as error:
                problems.append(f"{name} {error.problem}")
    if problems:
        raise ArtifactCorruptError(artifact.path, "; ".join(problems))


def difference(blocks: Iterator[bytes], entry: FileEntry) -> str | None:
    """Say how a file differs from what is declared; None if it does not. Stops reading where it is larger."""
    digest, size = hashlib.sha256(), 0
    for block in blocks:
        digest.update(block)
        size += len(block)
        if size > entry.bytes:
            break
    if size != entry.bytes:
        return f"has {'more' if size > entry.bytes else size} bytes, the manifest says {entry.bytes}"
    if digest.hexdigest() != entry.sha256:
        return f"has sha256 {digest.hexdigest()[:12]}…, the manifest says {entry.sha256[:12]}…"
    return None


def _flip_a_bit(artifact: Artifact) -> str:
    """See that the check catches one flipped bit in the largest file of the model itself; return its name."""
    own = [item for item in artifact.manifest.files.items() if not item[1].optional]
    name, entry = max(own, key=lambda item: item[1].bytes)
    if difference(fault_injection.flipped(_blocks(artifact.path / name), entry.bytes // 2), entry) is None:
        raise AssertionError(f"a flipped bit in {name} was not caught")
    return name


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            yield block
