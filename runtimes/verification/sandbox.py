"""Open an artifact in a process of its own, with limits of memory and time: a path goes in, nothing comes out, or an error of ours.

onnxruntime has crashed on malformed graphs; here its crash is that process' end and not ours. Run as a module it is that process.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

from runtimes.artifact.folder import Artifact
from runtimes.errors import ArtifactCorruptError, ArtifactCrashError, ToolkitError

SECONDS = 60
BASE_BYTES = 2 << 30
"""Address space that Python and onnxruntime take before they hold a model, threads' stacks included, and room for activations."""
COPIES = 6
"""Address space that a model may take, in sizes of its files: bytes, protobuf, initializers, packed weights."""


def open_apart(artifact: Artifact, *, seconds: float = SECONDS, memory_bytes: int | None = None) -> None:
    """Open an artifact and run each of its graphs once in a process of its own.

    Args:
        artifact: Its files have been checked.
        seconds: Time that it may take.
        memory_bytes: Address space that it may take; None: in proportion to its files.

    Raises:
        ArtifactCrashError: The process crashed, or exceeded a limit.
        ArtifactCorruptError: It could not be opened.
    """
    limit = memory_bytes or BASE_BYTES + COPIES * artifact.total_bytes
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}
    # -P: the current folder may be the artifact's, and must not become a place where modules are found.
    command = [sys.executable, "-P", "-m", "runtimes.verification.sandbox", str(artifact.path.resolve()), str(limit), str(seconds)]
    try:
        ended = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise ArtifactCrashError(artifact.path, f"opening it took more than {seconds:g} s and was stopped") from error
    if ended.returncode == 0:
        return
    if ended.returncode < 0:
        raise ArtifactCrashError(artifact.path, f"opening it ended with {signal.Signals(-ended.returncode).name}")
    try:
        problem = json.loads(ended.stdout.splitlines()[-1])["error"]
    except (ValueError, IndexError, KeyError, TypeError):
        lines = ended.stderr.decode(errors="replace").strip().splitlines()
        problem = lines[-1] if lines else f"exit code {ended.returncode}"
        raise ArtifactCrashError(artifact.path, f"opening it failed: {problem}") from None
    raise ArtifactCorruptError(artifact.path, f"cannot be opened: {problem}")


def main() -> int:
    """Open the artifact of the command line."""
    path, memory_bytes, seconds = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    _limit(memory_bytes, int(seconds) + 1)
    from runtimes.loading import load

    try:
        captioner = load(path, device="cpu", threads=1)
        captioner.caption([np.zeros((8, 8, 3), np.uint8)], max_length=4)
    except ToolkitError as error:
        print(json.dumps({"error": str(error)}))  # noqa: T201 - the answer to the parent
        return 1
    return 0


def _limit(memory_bytes: int, seconds: int) -> None:
    try:
        import resource
    except ModuleNotFoundError:  # Windows: no limits for a process in the standard library; the parent's clock runs all the same
        return
    for what, most in ((resource.RLIMIT_AS, memory_bytes), (resource.RLIMIT_CPU, seconds), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(what, (most, most))


if __name__ == "__main__":
    sys.exit(main())
