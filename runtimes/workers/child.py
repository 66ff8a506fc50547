"""The child process of `runtimes.workers.parent`: it reads requests as lines on stdin and writes replies as lines on stdout."""

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeAlias, TypeVar

from runtimes.artifact import json_dataclass
from runtimes.errors import ToolkitError, first_line

logger = logging.getLogger(__name__)

Send: TypeAlias = Callable[[Any], None]
"""Function that sends progress, JSON values, to the parent."""

R = TypeVar("R")


def serve(request_type: type[R], run: Callable[[R, Send], object]) -> None:
    """Handle requests until stdin ends. Then the parent is gone, so this process exits at once, also during a request.

    Args:
        request_type: Dataclass of the requests.
        run: Called with a request and a function that sends progress; returns the result, a dataclass or None. A `ToolkitError` is sent
            to the parent. The text of any other exception is sent too, and then the process exits with code 1.
    """
    # Libraries print to stdout, from Python and from C. Redirect that to stderr and keep a private descriptor for the replies.
    replies = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both processes; the parent ends this one after it has saved its work
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")  # if memory runs out, the kernel kills this process and not the parent

    def send(message: dict[str, Any]) -> None:
        try:
            print(json.dumps(message), file=replies, flush=True)
        except BrokenPipeError:
            os._exit(1)  # the parent is gone

    lines = _lines_of_stdin()
    while True:
        request, problems = json_dataclass.load(request_type, json.loads(lines.get()))
        assert request is not None, problems
        try:
            result = run(request, lambda progress: send({"progress": progress}))
            send({"result": None if result is None else json_dataclass.dump(result)})
        except ToolkitError as error:
            send({"error": str(error), "code": error.code})
        except Exception as error:
            logger.debug("%s failed", request_type.__name__, exc_info=True)
            send({"error": f"{type(error).__name__}: {first_line(error)}", "code": None})
            sys.exit(1)


def _lines_of_stdin() -> "SimpleQueue[bytes]":
    """Read lines in a thread that exits the process when stdin ends, since a request may take long or never end."""
    lines: SimpleQueue[bytes] = SimpleQueue()

    def read() -> None:
        rest = b""
        while part := os.read(0, 1 << 16):  # not sys.stdin: a thread that waits in it would block the exit of the interpreter
            *whole, rest = (rest + part).split(b"\n")
            for line in whole:
                lines.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return lines
