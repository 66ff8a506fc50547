"""Loads forged artifacts and captions with them, each in a process of its own: paths come in by standard input, what happened goes out.

    python -m tests.fuzz.child IMAGE

Everything is imported first and each case is a fork, so a case costs milliseconds. A line of JSON per path: `outcome` (our code,
"captioned", "exception ..." or the name of the signal that ended it), `seconds`, `grown_kb` and `deeds`, which holds whatever the case did
that loading and captioning must not do.
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
"""A case may take so much more than what is imported; what wants more is received that there is none."""
SECONDS = 20
STATM = Path("/proc/self/statm")
DEEDS = (
    "pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn",
    "socket.connect", "socket.bind", "socket.getaddrinfo", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink",
    "os.truncate", "shutil.rmtree",
)  # fmt: skip


def attempt(path: str, image: str) -> dict[str, Any]:
    """Load an artifact and caption an image with it; Python's audit events tell what else was done."""
    deeds: list[str] = []

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        if event in DEEDS or writes or (event == "ctypes.dlopen" and arguments[0] not in ("libc.so.6", *CUDA_DRIVERS)):
            deeds.append(f"{event} {arguments!r}")

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
    return {"outcome": outcome, "message": message[:500], "deeds": deeds}


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
    row = json.loads(received) if received else {"outcome": ended(status), "message": "", "deeds": []}
    return {**row, "seconds": time.perf_counter() - started, "grown_kb": used.ru_maxrss - before}


def ended(status: int) -> str:
    """How a process ended that received nothing."""
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}"


def mapped_bytes() -> int:
    """Address space of this process."""
    return int(STATM.read_text(encoding="ascii").split()[0]) * resource.getpagesize()


def resident_kb() -> int:
    """Resident memory of this process."""
    return int(STATM.read_text(encoding="ascii").split()[1]) * resource.getpagesize() // 1024


if __name__ == "__main__":
    torch.set_num_threads(1)
    for line in sys.stdin:
        print(json.dumps(in_fork(json.loads(line), sys.argv[1])), flush=True)
