"""Start a worker process, send it requests, and receive progress, results and the reason of its end.

Both processes write one JSON object per line. The parent writes {"request": a dataclass}. The child (`runtimes.workers.child`) replies with
any number of {"progress": ...}, then with {"result": ...} or {"error": text, "code": code of a ToolkitError or null}. While a request runs,
the parent may feed it {"feed": value, "bytes": N} with N bytes after the line; the value null ends that. The child exits when its stdin
ends.
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
from typing import IO, Any, Self, TypeVar

from runtimes.artifact import json_dataclass
from runtimes.errors import ToolkitError, error_from_code

ROOT = str(Path(__file__).parents[2])
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

T = TypeVar("T")


class Worker:
    """A module that runs in a subprocess. Use it as a context manager; the subprocess ends with the block.

    Args:
        module: Dotted name of a module that calls `runtimes.workers.child.serve`.
        threads: Value of the environment variables for numbers of threads; None leaves the environment unchanged.
        seconds: Time limit of a request, after which the subprocess is killed; None: no limit.
        every_progress: Apply the time limit to each progress after the first one, instead of to the whole request.
        quiet: True captures the child's stderr for `exit_reason`. False passes it to this process's stderr.
    """

    def __init__(
        self, module: str, *, threads: int | None = None, seconds: float | None = None, every_progress: bool = False, quiet: bool = True
    ) -> None:
        self.result: Any = None
        """Result of the last request, as JSON values; None until it arrives."""
        self.exit_reason = ""
        """Reason of the end of the subprocess; set at the end of the block, or when a request gets no result."""
        self.seconds = seconds
        """See the argument; a change applies to the next request."""
        self._error = ""
        self.timed_out = False
        """True if the time limit ended the subprocess."""
        self._every_progress = every_progress
        self._stderr = _memory_file() if quiet else None
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), ROOT)))}
        if threads is not None:
            environment |= {**dict.fromkeys(THREAD_VARIABLES, str(threads)), "TOKENIZERS_PARALLELISM": "false"}
        # -P: the current folder may be an untrusted artifact, so no module may be imported from it.
        command = [sys.executable, "-P", "-m", module]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, env=environment)
        self._writing = threading.Lock()

    @property
    def process_id(self) -> int:
        """Id of the subprocess."""
        return self._child.pid

    def request(self, request: object) -> Iterator[Any]:
        """Send a dataclass and yield progress as JSON values. Then `result` is set, or `exit_reason` if the subprocess has ended.

        Raises:
            ToolkitError: The error that the child raised.
        """
        assert self._child.stdout is not None
        self.result = None
        timer = self._timer(start=not self._every_progress)
        try:
            self._write({"request": json_dataclass.dump(request)})
            for line in self._child.stdout:
                if not line.endswith(b"\n"):
                    break  # the subprocess ended while it wrote
                message: dict[str, Any] = json.loads(line)
                if "progress" in message:
                    if self._every_progress:
                        timer.cancel()
                    yield message["progress"]
                    if self._every_progress:
                        timer = self._timer(start=True)
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

    def feed(self, value: object, content: bytes = b"") -> None:
        """Send a JSON value and bytes to the running request, see `serve_feed`; None ends the values. Any thread may call it."""
        self._write({"feed": value, "bytes": len(content)}, content)

    def kill(self) -> None:
        """Kill the subprocess, also from another thread than that of `request`, which then ends without a result."""
        self._child.kill()

    def _write(self, message: dict[str, Any], content: bytes = b"") -> None:
        assert self._child.stdin is not None
        with self._writing, suppress(BrokenPipeError, ValueError):  # it ended, or the pipe is closed; `exit_reason` gives the reason
            self._child.stdin.write(json.dumps(message).encode() + b"\n")
            self._child.stdin.write(content)
            self._child.stdin.flush()

    def close(self) -> None:
        """End the subprocess and set `exit_reason`."""
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

    def _timer(self, *, start: bool) -> threading.Timer:
        """Return a timer that kills the subprocess; without a time limit it is not started."""
        timer = threading.Timer(self.seconds or 0, self._kill_after_timeout)
        if start and self.seconds is not None:
            timer.start()
        return timer

    def _reason(self, status: int, lines: list[str]) -> str:
        if self.timed_out:
            return f"no answer within {self.seconds:g} s"
        return self._error or (lines[-1] if lines and status > 0 else describe_exit(status))

    def _kill_after_timeout(self) -> None:
        self.timed_out = True
        self._child.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            self.kill()
        self.close()


def _memory_file() -> IO[bytes]:
    """Return a temporary file; on Linux it is in memory, so that a machine without a writable folder can run workers."""
    if sys.platform == "linux":
        return os.fdopen(os.memfd_create("stderr"), "w+b")
    return tempfile.TemporaryFile()


def describe_exit(status: int) -> str:
    """Return the reason of an exit status. A negative status is the number of a POSIX signal; Windows has no SIGKILL."""
    if status >= 0:
        return f"exit code {status}"
    name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
    return f"{name}, perhaps out of memory" if name == "SIGKILL" else name


def request_once(
    module: str, request: object, result_type: type[T], *, threads: int, on_progress: Callable[[Any], None] = lambda progress: None
) -> tuple[T | None, str | None]:
    """Send one request to a module in a new subprocess, so that the memory of this process does not influence its measurements.

    Args:
        module: See `Worker`.
        request: A dataclass.
        result_type: Dataclass of the result.
        threads: See `Worker`.
        on_progress: Called with each progress, as JSON values.

    Returns:
        The result and None, or None and the reason in one line.
    """
    with Worker(module, threads=threads) as worker:
        try:
            for progress in worker.request(request):
                on_progress(progress)
        except ToolkitError as error:
            return None, str(error)
    if worker.result is None:
        return None, f"its process ended: {worker.exit_reason}"
    result, problems = json_dataclass.load(result_type, worker.result)
    assert result is not None, problems
    return result, None
