"""Examine an artifact in a subprocess with limits of memory and time. Run as a module, it is that subprocess.

onnxruntime and image decoders have crashed on malformed files: here that ends the subprocess. This process reads JSON and hashes alone.
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
from runtimes.verification.golden import read_golden
from runtimes.workers.child import serve
from runtimes.workers.parent import Worker

logger = logging.getLogger(__name__)

SECONDS = 600
"""Opening a large model and replaying its golden captions takes minutes on one slow core."""
BASE_BYTES = 2 << 30
"""Address space that Python and onnxruntime take before they hold a model, threads' stacks included, and room for activations."""
COPIES = 6
"""Address space that a model may take, in sizes of its files: bytes, protobuf, initializers, packed weights."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What the subprocess examines, and within which limits."""

    path: str
    threads: int | None
    memory_bytes: int
    seconds: int


def examine_in_subprocess(
    artifact: Artifact, threads: int | None = None, *, seconds: float = SECONDS, memory_bytes: int | None = None
) -> Examined:
    """Examine an artifact in a subprocess.

    Args:
        artifact: Its files have been checked.
        threads: CPU threads.
        seconds: Time that it may take.
        memory_bytes: Address space that it may take; None: in proportion to the model's size.

    Raises:
        ArtifactCrashError: The subprocess crashed, or exceeded a limit.
        ArtifactCorruptError: The artifact could not be opened.
    """
    memory = memory_bytes or BASE_BYTES + COPIES * artifact.total_bytes
    question = Question(path=str(artifact.path.resolve()), threads=threads, memory_bytes=memory, seconds=int(seconds) + 1)
    with Worker(__name__, seconds=seconds) as worker:
        try:
            for warning in worker.request(question):
                logger.warning("%s", warning)
        except ToolkitError as error:
            raise ArtifactCorruptError(artifact.path, f"cannot be opened: {error}") from error
    if worker.result is None:
        raise ArtifactCrashError(artifact.path, f"opening it in a subprocess failed: {worker.exit_reason}")
    examined, problems = json_dataclass.load(Examined, worker.result)
    assert examined is not None, problems
    return examined


def _run(question: Question, warn: Callable[[str], None]) -> Examined:
    _limit(question, warn)
    with open_verified(open_artifact(Path(question.path))) as files:
        return examine(files, read_golden(files), question.threads)


def _limit(question: Question, warn: Callable[[str], None]) -> None:
    """Set the limits of this process, none above a lower one that it already has."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows: the standard library sets no limits; the parent's clock runs all the same
        return
    cpu_seconds = question.seconds * (question.threads or 1024)
    for name, most in (("RLIMIT_AS", question.memory_bytes), ("RLIMIT_CPU", cpu_seconds), ("RLIMIT_CORE", 0)):
        try:
            hard = resource.getrlimit(getattr(resource, name))[1]
            limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(getattr(resource, name), (limit, limit))
        except (OSError, ValueError) as error:
            warn(f"{name} could not be set to {most}: {error}")


if __name__ == "__main__":
    serve(Question, _run)
