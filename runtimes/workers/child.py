"""The other end of `runtimes.workers.parent`: JSON on stdin goes to a function, what it returns goes out as a JSON line on stdout."""

import json
import os
import sys
from collections.abc import Callable
from typing import Any, TypeAlias

from runtimes.artifact import json_dataclass
from runtimes.errors import ToolkitError

Send: TypeAlias = Callable[[dict[str, Any]], None]


def answer(run: Callable[[dict[str, Any], Send], object]) -> None:
    """Answer one question with the dataclass that `run` returns; one of our errors is the answer too, any other is a bug."""
    # What a library prints, from Python or from C, must not get between our lines.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def send(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=answers, flush=True)

    try:
        send({"result": json_dataclass.to_json(run(json.loads(sys.stdin.read()), send))})
    except ToolkitError as error:
        send({"error": str(error)})
