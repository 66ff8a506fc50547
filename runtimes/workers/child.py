"""The child's end of `runtimes.workers.parent`: questions arrive as lines on stdin, answers leave as lines on stdout."""

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
"""Sends progress, JSON values, to the parent."""

Q = TypeVar("Q")


def serve(question: type[Q], run: Callable[[Q, Send], object]) -> None:
    """Answer questions until stdin ends; then this process ends at once, whatever it is doing, since its parent is gone.

    Args:
        question: The dataclass that a question is read as.
        run: Called with a question and a function that sends progress; returns the result, a dataclass or None.
            A ToolkitError becomes the answer. After any other exception the answer is its text, and the process ends with exit code 1.
    """
    # What a library prints, from Python or from C, must not get between the lines.
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both; the parent ends this process when it has saved its own work
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")  # where memory runs out, the kernel takes this process and not the parent

    def send(message: dict[str, Any]) -> None:
        try:
            print(json.dumps(message), file=answers, flush=True)
        except BrokenPipeError:
            os._exit(1)  # nobody reads any more

    lines = _lines_of_stdin()
    while True:
        asked, problems = json_dataclass.load(question, json.loads(lines.get()))
        assert asked is not None, problems
        try:
            result = run(asked, lambda progress: send({"progress": progress}))
            send({"result": None if result is None else json_dataclass.dump(result)})
        except ToolkitError as error:
            send({"error": str(error), "code": error.code})
        except Exception as error:
            logger.debug("%s failed", question.__name__, exc_info=True)
            send({"error": f"{type(error).__name__}: {first_line(error)}", "code": None})
            sys.exit(1)


def _lines_of_stdin() -> "SimpleQueue[bytes]":
    """Read lines in a thread, which ends this process where stdin ends: work on a question may take long, or never end."""
    lines: SimpleQueue[bytes] = SimpleQueue()

    def read() -> None:
        rest = b""
        while part := os.read(0, 1 << 16):  # not through sys.stdin, whose lock would be held when the interpreter ends
            *whole, rest = (rest + part).split(b"\n")
            for line in whole:
                lines.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return lines
