"""Make one system call of a running process fail, with strace: the kernel refuses it, whether Python or native code makes it.

A fork stops itself, strace attaches to its main thread, and the fork goes on. A first attempt without a fault lists the calls about files
below a folder. Calls are counted per name, so the same command makes the same call again.
"""

import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

CALLS = (
    *("openat", "write", "pwrite64", "writev", "ftruncate", "fallocate", "copy_file_range", "sendfile", "mmap"),
    *("rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat", "unlink", "unlinkat", "rmdir", "mkdir", "mkdirat"),
    *("fsync", "fdatasync", "flock", "chmod", "fchmod", "fchmodat", "statfs", "fstatfs", "utimensat"),
    *("read", "pread64", "readv", "preadv", "lseek", "getdents64", "readlink", "readlinkat"),
    *("stat", "lstat", "fstat", "newfstatat", "statx", "access", "faccessat", "faccessat2"),
)
"""System calls about files. Those that a command does not make have no points."""
ERRORS = ("EPERM", "ENOSYS", "ENOSPC", "EIO", "EMFILE", "ESTALE", "EACCES", "EROFS")
LINE = re.compile(r"([a-z_0-9]+)\(")


@dataclass(frozen=True, kw_only=True)
class Point:
    """The `number`-th call of this name fails with an error."""

    call: str
    number: int
    error: str = "EIO"


def can_trace() -> bool:
    """Return whether strace is installed and may attach to a child."""
    if shutil.which("strace") is None:
        return False
    child = subprocess.Popen(["sleep", "5"])
    try:
        ended = subprocess.run(
            ["timeout", "1", "strace", "-o", "/dev/null", "-p", str(child.pid)], capture_output=True, text=True, check=False
        )
        return "attached" in ended.stderr
    finally:
        child.kill()
        child.wait()


def stop_until_traced() -> None:
    """Stop this process, a fork, until `trace` has attached strace to it."""
    os.kill(os.getpid(), signal.SIGSTOP)


def trace(child: int, log: Path, point: Point | None) -> subprocess.Popen[str]:
    """Attach strace to a child that called `stop_until_traced`, and let it go on.

    Args:
        child: Process id.
        log: File for the trace.
        point: The call that fails; None: trace all calls of `CALLS`.
    """
    os.waitpid(child, os.WUNTRACED)
    calls = ",".join(f"?{call}" for call in CALLS) if point is None else point.call
    options = [] if point is None else ["-e", f"inject={point.call}:error={point.error}:when={point.number}"]
    command = ["strace", "-y", "-s", "4096", "-o", str(log), "-e", f"trace={calls}", *options, "-p", str(child)]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    attached = tracer.stderr.readline()
    os.kill(child, signal.SIGCONT)
    if "attached" not in attached:
        raise RuntimeError(f"strace cannot attach: {attached}")
    return tracer


def points_below(log: Path, *folders: Path) -> list[Point]:
    """Return the calls of a trace that are about files below one of some folders."""
    counts: Counter[str] = Counter()
    points = []
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        if match := LINE.match(line):
            counts[match[1]] += 1
            if match[1] in CALLS and any(f"{folder}/" in line for folder in folders):
                points.append(Point(call=match[1], number=counts[match[1]]))
    return points
