"""Examine an artifact in a subprocess with limits of memory and time. This module is also the main module of the subprocess.

onnxruntime and image decoders have crashed on malformed files. Such a crash ends the subprocess only. The parent process reads nothing but
JSON, and hashes files.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from runtimes.artifact import json_dataclass
from runtimes.artifact.folder import Artifact, open_artifact
from runtimes.artifact.verified_files import open_verified
from runtimes.errors import ArtifactCorruptError, ArtifactCrashError, ToolkitError
from runtimes.verification.examine import Examined, examine
from runtimes.verification.golden_tasks import read_golden
from runtimes.workers.child import serve
from runtimes.workers.parent import Worker

logger = logging.getLogger(__name__)

SECONDS = 600
"""Opening a large model and replaying its golden captions takes minutes on one slow core."""
BASE_BYTES = 2 << 30
"""Address space for Python and onnxruntime without a model, for stacks of threads and for activations."""
COPIES = 6
"""Address space for a model, in multiples of its files: bytes, protobuf, initializers, packed weights."""


@dataclass(frozen=True, kw_only=True)
class ExamineRequest:
    """The artifact and the limits, for the subprocess."""

    path: str
    threads: int | None
    memory_bytes: int
    seconds: int


def examine_in_subprocess(
    artifact: Artifact, threads: int | None = None, *, seconds: float = SECONDS, memory_bytes: int | None = None
) -> Examined:
    """Examine an artifact in a subprocess.

    Args:
        artifact: An artifact whose files have been checked.
        threads: CPU threads.
        seconds: Time limit.
        memory_bytes: Limit of address space; None: in proportion to the size of the model.

    Raises:
        ArtifactCrashError: The subprocess crashed or exceeded a limit.
        ArtifactCorruptError: The artifact could not be opened.
    """
    memory = memory_bytes or BASE_BYTES + COPIES * artifact.total_bytes
    request = ExamineRequest(path=str(artifact.path.resolve()), threads=threads, memory_bytes=memory, seconds=int(seconds) + 1)
    with Worker(__name__, seconds=seconds) as worker:
        try:
            for warning in worker.request(request):
                logger.warning("%s", warning)
        except ToolkitError as error:
            raise ArtifactCorruptError(artifact.path, f"cannot be opened: {error}") from error
    if worker.result is None:
        raise ArtifactCrashError(artifact.path, f"opening it in a subprocess failed: {worker.exit_reason}")
    examined, problems = json_dataclass.load(Examined, worker.result)
    assert examined is not None, problems
    return examined


def _run(request: ExamineRequest, warn: Callable[[str], None]) -> Examined:
    _limit(request, warn)
    with open_verified(open_artifact(Path(request.path))) as files:
        return examine(files, read_golden(files), request.threads)


def _limit(request: ExamineRequest, warn: Callable[[str], None]) -> None:
    """Set the limits of this process; an existing lower limit stays."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows: the standard library sets no limits; the parent's time limit still applies
        return
    cpu_seconds = request.seconds * (request.threads or 1024)
    for name, maximum in (("RLIMIT_AS", request.memory_bytes), ("RLIMIT_CPU", cpu_seconds), ("RLIMIT_CORE", 0)):
        try:
            hard = resource.getrlimit(getattr(resource, name))[1]
            limit = maximum if hard == resource.RLIM_INFINITY else min(maximum, hard)
            resource.setrlimit(getattr(resource, name), (limit, limit))
        except (OSError, ValueError) as error:
            warn(f"{name} could not be set to {maximum}: {error}")


if __name__ == "__main__":
    serve(ExamineRequest, _run)
