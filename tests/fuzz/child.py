"""Load forged artifacts and caption with them, each in its own process. Paths are read from stdin, results are written to stdout.

    python -m tests.fuzz.child IMAGE

All libraries are imported first and each case is a fork, so a case costs milliseconds. The result is a line of JSON per path: `outcome`
(an error code of the toolkit, "captioned", "exception ..." or the name of the signal that ended the process), `seconds`, `grown_kb`, and
`forbidden`: the events of the case that loading and captioning must not cause.
"""

import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

import onnxruntime  # noqa: F401 - before the fork
import torch

import runtimes
import runtimes.engines.ort.session
import runtimes.engines.pytorch.session
import runtimes.loading
from runtimes.artifact.folder import open_artifact
from runtimes.artifact.verified_files import open_verified
from runtimes.errors import ToolkitError
from runtimes.host.facts import CUDA_DRIVERS
from runtimes.verification.golden import read_golden
from runtimes.verification.replay import replay

MEMORY_BYTES = 2 << 30
"""Memory that a case may use in addition to the imported libraries. Larger requests fail."""
SECONDS = 20
STATM = Path("/proc/self/statm")
FORBIDDEN = (
    "pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn",
    "socket.connect", "socket.bind", "socket.getaddrinfo", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink",
    "os.truncate", "shutil.rmtree",
)  # fmt: skip


def attempt(path: str, image: str) -> dict[str, Any]:
    """Load an artifact and caption an image with it. Audit events of Python record what else happened."""
    forbidden: list[str] = []

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        if event in FORBIDDEN or writes or (event == "ctypes.dlopen" and arguments[0] not in ("libc.so.6", *CUDA_DRIVERS)):
            forbidden.append(f"{event} {arguments!r}")

    sys.addaudithook(watch)
    try:
        captioner = runtimes.load(path, threads=1)
        captioner.caption([image], num_beams=1, max_length=8)  # with drafts, if the artifact has a table
        (caption,) = captioner.caption([image], num_beams=2, max_length=8)
        outcome = "captioned" if caption.error is None else f"row {caption.code}"
        message = caption.error or ""
        with open_verified(open_artifact(Path(path))) as files:
            golden = read_golden(files)
            if golden is not None:
                outcome = "golden captions differ" if replay(captioner, golden, files).differences else "golden captions equal"
    except ToolkitError as error:
        outcome, message = error.code, str(error)
    except BaseException as error:
        outcome, message = f"exception {type(error).__name__}", repr(error)
    return {"outcome": outcome, "message": message[:500], "forbidden": forbidden}


def in_fork(path: str, image: str) -> dict[str, Any]:
    """Run a case in a fork with limits and wait for its end."""
    reader, writer = os.pipe()
    before, started = resident_kb(), time.perf_counter()
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_AS, (mapped_bytes() + MEMORY_BYTES,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        signal.alarm(3 * SECONDS)
        os.write(writer, json.dumps(attempt(path, image)).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        received = stream.read()
    _, status, used = os.wait4(child, 0)
    row = json.loads(received) if received else {"outcome": ended(status), "message": "", "forbidden": []}
    return {**row, "seconds": time.perf_counter() - started, "grown_kb": used.ru_maxrss - before}


def ended(status: int) -> str:
    """Return how a process without a result ended."""
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}"


def mapped_bytes() -> int:
    """Return the address space of this process in bytes."""
    return int(STATM.read_text(encoding="ascii").split()[0]) * resource.getpagesize()


def resident_kb() -> int:
    """Return the resident memory of this process in kB."""
    return int(STATM.read_text(encoding="ascii").split()[1]) * resource.getpagesize() // 1024


if __name__ == "__main__":
    torch.set_num_threads(1)
    for line in sys.stdin:
        print(json.dumps(in_fork(json.loads(line), sys.argv[1])), flush=True)
