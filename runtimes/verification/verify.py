"""Verify an artifact or a package on the machine that is to run it.

Steps: check the manifest, its digest, and the names, sizes and hashes of the files; open the graphs from the hashed bytes; replay the
golden captions. Verification needs no library that captioning does not need.
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
from runtimes.verification.golden import Sensitivity
from runtimes.verification.golden_tasks import GOLDEN_TASKS, read_golden
from runtimes.verification.replay import Replay
from runtimes.verification.sandbox import examine_in_subprocess


@dataclass(frozen=True, kw_only=True)
class Report:
    """The result of a verification that succeeded."""

    artifact: str
    digest: str
    """sha256 of manifest.json, which contains the hashes of all files. If it equals the sender's digest, the artifact is the sender's."""
    task: str
    """Task of the manifest."""
    authentic: bool
    """True if the digest was compared with an expected one."""
    files: int
    bytes: int
    """Size of the manifest and all declared files, optional ones included."""
    sandboxed: bool
    """True if graphs and golden images were opened only in a subprocess."""
    providers: tuple[str, ...]
    golden: Replay | None
    """None: the artifact has no golden results."""
    sensitivity: Sensitivity | None
    """Whether the golden captions detect damage, as measured when they were recorded."""


def verify(
    path: Path, *, digest: str | None = None, untrusted: bool = False, threads: int | None = None, work_dir: Path | None = None
) -> Report:
    """Verify an artifact or a package.

    Args:
        path: Folder of an artifact, or an archive that `toolkit package` wrote. An archive is unpacked temporarily.
        digest: Expected sha256 of the manifest, as the sender published it.
        untrusted: True opens graphs and images only in a subprocess with limits of memory and time.
        threads: CPU threads.
        work_dir: Folder for the unpacked archive; None: the archive's folder, or if that is read-only the system's temporary folder.

    Raises:
        ArtifactMissingError, ManifestError, ManifestVersionError, ArchiveError, ArtifactCorruptError: The artifact is missing, invalid
            or damaged.
        DigestError: The digest differs from the expected one.
        ArtifactCrashError: Opening the artifact crashes the subprocess or exceeds its limits.
        GoldenError: Captions on this machine differ from the golden captions.
        OutputError: The archive cannot be unpacked.
    """
    if not path.is_file():
        return _verify(path, digest, threads, untrusted=untrusted)
    parent = work_dir or path.parent
    try:
        if work_dir is None and not os.access(parent, os.W_OK):
            parent = Path(tempfile.gettempdir())
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
        task=manifest.task,
        authentic=digest is not None,
        files=len(manifest.files),
        bytes=sum(entry.bytes for entry in manifest.files.values()) + artifact.manifest_path.stat().st_size,
        sandboxed=untrusted,
        providers=examined.providers,
        golden=examined.golden,
        sensitivity=golden.sensitivity if golden else None,
    )


def summary(report: Report) -> list[str]:
    """Return the report as text, one line per check."""
    golden, compared = report.golden, "as expected" if report.authentic else "not compared with the sender's (--digest)"
    lines = [
        f"{report.artifact}: verified",
        f"  digest    {report.digest}, {compared}",
        f"  files     {report.files} and the manifest, {report.bytes / 1e6:.1f} MB: sizes and hashes as declared, no other files",
        f"  model     opened{' in a subprocess' if report.sandboxed else ''} ({', '.join(report.providers)}); "
        "inputs, outputs and operators of graphs as declared",
    ]
    noun = GOLDEN_TASKS[report.task].noun
    if golden is None or report.sensitivity is None:
        return [*lines, f"  {noun:<8}  none to compare with: only a package (toolkit package) contains golden {noun}"]
    where = "this kind of machine" if golden.same_machine else "another kind of machine"
    drafted = f"; with drafts {golden.drafted_equal} of {golden.drafted}" if golden.drafted else ""
    searches = f", {len(golden.ties)} ties (beams {', '.join(map(str, golden.searches))}{drafted})" if golden.searches else ""
    lines += [
        f"  {noun:<8}  {golden.equal} of {golden.captions} as recorded on {where}{searches}",
        *(f"            tie: {tie}" for tie in golden.ties),
    ]
    if golden.logits_difference is not None:
        values = "logits" if golden.searches else noun
        lines.append(f"  {values:<8}  differ by {golden.logits_difference:.2g} at most, {golden.logits_bound:g} is allowed")
    if not report.sensitivity.noticed:
        lines.append(f"  WEAK      golden {noun} do not change if a thousandth of {report.sensitivity.layer} is zero; hashes detect it")
    return lines


def check_files(files: VerifiedFiles) -> None:
    """Check that a folder contains exactly the declared files, each a regular file of the declared size and hash.

    Raises:
        ArtifactCorruptError: Files are missing, changed or not declared; the message lists all of them.
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
