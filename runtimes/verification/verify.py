"""Verify an artifact, or a package, on the machine where it is to run.

In this order: the manifest, its digest, exactly the declared files, their sizes and hashes; the graphs, opened from the bytes that were
hashed; the golden captions. Nothing here needs more than captioning does.
"""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from runtimes.artifact.folder import open_artifact
from runtimes.artifact.manifest import MANIFEST_NAME
from runtimes.artifact.verified_files import VerifiedFiles, open_verified
from runtimes.errors import ArtifactCorruptError, DigestError, GoldenError, OutputError, ToolkitError
from runtimes.storage.archive import SUFFIX, unpack
from runtimes.storage.atomic_write import working_folder
from runtimes.verification.examine import examine
from runtimes.verification.golden import Replay, Sensitivity, read_golden
from runtimes.verification.sandbox import examine_in_subprocess


@dataclass(frozen=True, kw_only=True)
class Report:
    """Result of a verification that found nothing wrong."""

    artifact: str
    digest: str
    """sha256 of manifest.json, which fixes the hashes of all files. If it is the sender's, so is the artifact."""
    authentic: bool
    """Whether the digest was compared with an expected one."""
    files: int
    bytes: int
    """Of all declared files, the manifest and optional ones included."""
    sandboxed: bool
    """Whether graphs and golden images were opened in a subprocess only."""
    providers: tuple[str, ...]
    golden: Replay | None
    """None: the artifact has no golden captions."""
    sensitivity: Sensitivity | None
    """Whether the golden captions notice damage, as measured when they were recorded."""


def verify(
    path: Path, *, digest: str | None = None, untrusted: bool = False, threads: int | None = None, work_dir: Path | None = None
) -> Report:
    """Verify an artifact or a package.

    Args:
        path: A folder, or an archive that `toolkit package` wrote, which is unpacked for the time of the verification.
        digest: Expected sha256 of the manifest, as the sender published it.
        untrusted: Open graphs and images in a subprocess only, with limits of memory and time.
        threads: CPU threads.
        work_dir: Where an archive is unpacked; None: beside the archive, or in the system's temporary folder where that is read-only.

    Raises:
        ArtifactMissingError, ManifestError, ManifestVersionError, ArchiveError, ArtifactCorruptError: It is not what it declares.
        DigestError: It is not what the sender published.
        ArtifactCrashError: Opening it crashes the subprocess, or exceeds its limits.
        GoldenError: It captions otherwise here.
        OutputError: An archive cannot be unpacked.
    """
    if not path.is_file():
        return _verify(path, digest, threads, untrusted=untrusted)
    parent = work_dir or (path.parent if os.access(path.parent, os.W_OK) else Path(tempfile.gettempdir()))
    try:
        with working_folder(parent, f".{path.name}.verify-") as folder:
            unpacked = folder / path.name.removesuffix(SUFFIX)
            unpack(path, unpacked, digest)
            return _verify(unpacked, digest, threads, untrusted=untrusted)
    except OSError as error:
        if isinstance(error, ToolkitError) and not isinstance(error, OutputError):
            raise
        cause = error.__cause__ if isinstance(error, OutputError) else error
        problem = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(error)
        raise OutputError(parent, f"{problem}; to unpack the archive elsewhere, use --work-dir DIR") from error


def _verify(path: Path, digest: str | None, threads: int | None, *, untrusted: bool) -> Report:
    artifact = open_artifact(path)
    manifest = artifact.manifest
    if digest is not None and manifest.digest != digest.lower():
        raise DigestError(path, manifest.digest, digest)
    with open_verified(artifact) as files:
        check_files(files)
        golden = read_golden(files)
        examined = examine_in_subprocess(artifact, threads) if untrusted else examine(files, golden, threads)
    if examined.golden is not None and examined.golden.differences:
        raise GoldenError(path, "; ".join(examined.golden.differences))
    return Report(
        artifact=manifest.name,
        digest=manifest.digest,
        authentic=digest is not None,
        files=len(manifest.files),
        bytes=sum(entry.bytes for entry in manifest.files.values()) + artifact.manifest_path.stat().st_size,
        sandboxed=untrusted,
        providers=examined.providers,
        golden=examined.golden,
        sensitivity=golden.sensitivity if golden else None,
    )


def summary(report: Report) -> list[str]:
    """Return a report for people, a line per check."""
    golden, compared = report.golden, "as expected" if report.authentic else "not compared with the sender's (--digest)"
    lines = [
        f"{report.artifact}: verified",
        f"  digest    {report.digest}, {compared}",
        f"  files     {report.files} and the manifest, {report.bytes / 1e6:.1f} MB: sizes and hashes as declared, nothing else is there",
        f"  model     opened{' in a subprocess' if report.sandboxed else ''} ({', '.join(report.providers)}); "
        "a graph's inputs, outputs and operators are as declared",
    ]
    if golden is None or report.sensitivity is None:
        return [*lines, "  captions  none to compare with: only a package (toolkit package) contains golden captions"]
    where = "this kind of machine" if golden.same_machine else "another kind of machine"
    lines += [
        f"  captions  {golden.equal} of {golden.captions} as recorded on {where}, {len(golden.ties)} ties "
        f"(beams {', '.join(map(str, golden.searches))})",
        *(f"            tie: {tie}" for tie in golden.ties),
    ]
    if golden.logits_difference is not None:
        lines.append(f"  logits    differ by {golden.logits_difference:.2g} at most, {golden.logits_bound:g} is allowed")
    if not report.sensitivity.noticed:
        lines.append(f"  WEAK      golden captions do not notice a thousandth of {report.sensitivity.layer} set to zero; hashes do")
    return lines


def check_files(files: VerifiedFiles) -> None:
    """Compare an artifact's folder with its manifest: exactly the declared files, each a regular one of the declared size and hash.

    Raises:
        ArtifactCorruptError: With every file that is missing, changed or not declared.
    """
    artifact = files.artifact
    try:
        extra = {file.name for file in artifact.path.iterdir()} - {MANIFEST_NAME, *artifact.manifest.files}
    except OSError as error:
        raise ArtifactCorruptError(artifact.path, f"cannot be read ({error.strerror})") from error
    problems = [f"{name!r} is not declared" for name in sorted(extra)]
    for name, entry in artifact.manifest.files.items():
        try:
            files.open(entry.role)
        except ArtifactCorruptError as error:
            problems.append(f"{name} {error.problem}")
    if problems:
        raise ArtifactCorruptError(artifact.path, "; ".join(problems))
