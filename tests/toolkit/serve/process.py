"""`toolkit serve` in a process of its own, for tests."""

import re
import signal
import subprocess
import sys
import time

from tests.toolkit.serve.served import PATIENCE_S, Served

COMMAND = [sys.executable, "-m", "toolkit.cli", "serve"]


class Process:
    """`toolkit serve` in a subprocess."""

    def __init__(self, *arguments, **options):
        heed = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL)}  # `nohup make test` ignores it
        command = [*COMMAND, *map(str, arguments), "--port", "0"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **heed, **options)
        self.port = int(re.findall(r"Listening at http://127\.0\.0\.1:(\d+)\n", self.process.stderr.readline())[0])
        self.server = Served(self.port, None)

    def until_ready(self):
        end = time.monotonic() + PATIENCE_S
        while self.server.get("/readyz").status != 200:
            assert time.monotonic() < end
            time.sleep(0.05)
        return self

    def end(self):
        """Return the exit code and the lines on stderr."""
        _, lines = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, lines.splitlines()
