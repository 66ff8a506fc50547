"""Measuring in a fresh process: a question goes in, its answer comes out, or why there is none. What the parent holds cannot disturb it.

The module that runs reads its question as JSON from stdin and writes JSON lines: {"captioned": n} per n captions, then {"result": ...}, or
{"error": ...} for an input's fault.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any, TypeVar

from runtimes.artifact import json_dataclass

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

T = TypeVar("T")


def ask(
    module: str, question: object, answer: type[T], *, threads: int, on_caption: Callable[[], None] = lambda: None
) -> tuple[T | None, str | None]:
    """Run a module in a process of its own.

    Args:
        module: Its dotted name.
        question: A dataclass.
        answer: The dataclass that its result is read as.
        threads: For libraries that take their number from the environment.
        on_caption: Told of every caption.

    Returns:
        The answer, or None and why in one line.
    """
    environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads)), "TOKENIZERS_PARALLELISM": "false"}
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            [sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment
        )
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(json_dataclass.canonical(json_dataclass.to_json(question)))
            child.stdin.close()
            for line in child.stdout:
                message: dict[str, Any] = json.loads(line)
                if "captioned" in message:
                    for _ in range(message["captioned"]):
                        on_caption()
                elif "error" in message:
                    return None, message["error"]
                else:
                    result, problems = json_dataclass.from_json(answer, message["result"])
                    assert result is not None, problems
                    return result, None
        except BrokenPipeError:
            pass  # it ended before it read its question; its exit status tells why
        except BaseException:
            child.kill()
            raise
        finally:
            child.stdout.close()
            status = child.wait()
        errors.seek(0)
        lines = errors.read().decode(errors="replace").strip().splitlines()
    if status < 0:
        return None, f"its process was ended by {signal.Signals(-status).name}" + (" (out of memory?)" if -status == signal.SIGKILL else "")
    return None, f"its process failed: {lines[-1] if lines else f'exit code {status}'}"
