"""The parent's end of a worker process: it sends questions, receives progress and results, and learns why a process ended.

Both ends write one JSON value per line. The parent writes a question, a dataclass. The child (`runtimes.workers.child`) answers with any
number of {"progress": ...}, then with {"result": ...} or {"error": text, "code": a ToolkitError's or null}. It ends when its stdin ends.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from runtimes.artifact import json_dataclass
from runtimes.errors import ToolkitError, error_from_code

ROOT = str(Path(__file__).parents[2])
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

T = TypeVar("T")


class Worker:
    """A module that runs in a process of its own. Use it as a context manager: the process ends with the block.

    Args:
        module: Dotted name of a module that calls `runtimes.workers.child.serve`.
        threads: For libraries that read their number of threads from the environment; None leaves the environment as it is.
        seconds: Longest time for one question; then the process is killed. None: no limit.
        quiet: Keep the child's stderr for `exit_reason`; otherwise it is this process's stderr.
    """

    def __init__(self, module: str, *, threads: int | None = None, seconds: float | None = None, quiet: bool = True) -> None:
        self.result: Any = None
        """The answer to the last question, as JSON values; None before it has come."""
        self.exit_reason = ""
        """Why the process ended; set when the block has ended, or when a question stays unanswered."""
        self._seconds, self._late, self._error = seconds, False, ""
        self._stderr = tempfile.TemporaryFile() if quiet else None  # noqa: SIM115 - closed by `close`
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), ROOT)))}
        if threads is not None:
            environment |= {**dict.fromkeys(THREAD_VARIABLES, str(threads)), "TOKENIZERS_PARALLELISM": "false"}
        # -P: the current folder may be an artifact's, and must not become a place where modules are found.
        command = [sys.executable, "-P", "-m", module]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, env=environment)

    def request(self, question: object) -> Iterator[Any]:
        """Send a dataclass and yield the progress, as JSON values; then `result` is set, or `exit_reason` where the process has ended.

        Raises:
            ToolkitError: What the child raised.
        """
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self.result = None
        timer = threading.Timer(self._seconds or 0, self._kill_late)
        if self._seconds is not None:
            timer.start()
        try:
            with suppress(BrokenPipeError):  # it ended before it read its question; its exit status tells why
                self._child.stdin.write(json.dumps(json_dataclass.dump(question)).encode() + b"\n")
                self._child.stdin.flush()
            for line in self._child.stdout:
                if not line.endswith(b"\n"):
                    break  # the process ended while it wrote
                message: dict[str, Any] = json.loads(line)
                if "progress" in message:
                    yield message["progress"]
                elif "result" in message:
                    self.result = message["result"]
                    return
                elif message["code"] is not None:
                    raise error_from_code(message["code"], message["error"])
                else:
                    self._error = message["error"]
        finally:
            timer.cancel()
        self.close()

    def close(self) -> None:
        """End the process and set `exit_reason`."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        with suppress(BrokenPipeError):
            self._child.stdin.close()
        status = self._child.wait()
        self._child.stdout.close()
        if self._stderr is None or self._stderr.closed:
            lines: list[str] = []
        else:
            self._stderr.seek(0)
            lines = self._stderr.read().decode(errors="replace").strip().splitlines()
            self._stderr.close()
        self.exit_reason = self.exit_reason or self._reason(status, lines)

    def _reason(self, status: int, lines: list[str]) -> str:
        if self._late:
            return f"no answer within {self._seconds:g} s"
        return self._error or (lines[-1] if lines and status > 0 else describe_exit(status))

    def _kill_late(self) -> None:
        self._late = True
        self._child.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            self._child.kill()
        self.close()


def describe_exit(status: int) -> str:
    """Name how a process ended, from its exit status; a negative one is a POSIX signal's number, and Windows has no SIGKILL."""
    if status >= 0:
        return f"exit code {status}"
    name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
    return f"{name}, perhaps out of memory" if name == "SIGKILL" else name


def request_once(
    module: str, question: object, answer: type[T], *, threads: int, on_progress: Callable[[Any], None] = lambda progress: None
) -> tuple[T | None, str | None]:
    """Ask one question of a module in a fresh process: what this process has in memory does not disturb a measurement there.

    Args:
        module: See `Worker`.
        question: A dataclass.
        answer: The dataclass that the result is read as.
        threads: See `Worker`.
        on_progress: Called with every progress, JSON values.

    Returns:
        The answer, or None and the reason in one line.
    """
    with Worker(module, threads=threads) as worker:
        try:
            for progress in worker.request(question):
                on_progress(progress)
        except ToolkitError as error:
            return None, str(error)
    if worker.result is None:
        return None, f"its process ended: {worker.exit_reason}"
    result, problems = json_dataclass.load(answer, worker.result)
    assert result is not None, problems
    return result, None
