"""Faults at calls to the file system: a process counts its calls, and at one of them it is killed, or the disk is full.

An audit hook counts the calls (open, rename, remove, list, lock). `os.fsync` has no audit event, so it is wrapped. Writes have none either:
a full disk is a limit of zero bytes for every file from that call on, also for files of native code.
"""

import os
import resource
import signal
import sys
from pathlib import Path

EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.scandir", "os.listdir", "os.truncate", "fcntl.flock"}
BY_DESCRIPTOR = {"fcntl.flock", "os.scandir", "os.truncate"}


class Stops:
    """Count the calls about files under a folder, and cause the fault at one of them."""

    def __init__(self, root: Path, at: int, action: str) -> None:
        self.calls = 0
        self._root, self._at, self._action, self._fsync = str(root), at, action, os.fsync

    def install(self) -> None:
        """Start to count, for the rest of this process: audit hooks cannot be removed."""
        sys.addaudithook(self._hook)
        os.fsync = self._synced

    def _hook(self, event: str, arguments: tuple) -> None:
        if event in EVENTS and arguments:
            subject = arguments[0]
            if isinstance(subject, int):
                inside = event in BY_DESCRIPTOR
            else:
                inside = os.fsdecode(subject).startswith(self._root) if isinstance(subject, str | bytes | os.PathLike) else False
            if inside:
                self._call()

    def _synced(self, descriptor: int) -> None:
        self._call()
        self._fsync(descriptor)

    def _call(self) -> None:
        self.calls += 1
        if self.calls != self._at:
            return
        if self._action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
