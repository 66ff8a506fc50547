"""The child process of `runtimes.workers.parent`: it reads requests on stdin and writes replies as lines on stdout."""

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeAlias, TypeVar

from runtimes.artifact import json_dataclass
from runtimes.errors import ToolkitError, first_line

logger = logging.getLogger(__name__)

Send: TypeAlias = Callable[[Any], None]
"""Function that sends progress, JSON values, to the parent. Several threads may call it."""

Feed: TypeAlias = Iterator[tuple[Any, bytes]]
"""Values that the parent sends to a running request, see `Worker.feed`: JSON value and bytes. It waits for the next one, and ends when the
parent ends it."""

R = TypeVar("R")


def serve(request_type: type[R], run: Callable[[R, Send], object]) -> None:
    """Handle requests until stdin ends. Then the parent is gone, so this process exits at once, also during a request.

    Args:
        request_type: Dataclass of the requests.
        run: Called with a request and a function that sends progress; returns the result, a dataclass or None. A `ToolkitError` is sent
            to the parent. The text of any other exception is sent too, and then the process exits with code 1.
    """
    serve_feed(request_type, lambda request, send, feed: run(request, send))


def serve_feed(request_type: type[R], run: Callable[[R, Send, Feed], object]) -> None:
    """Handle requests as `serve` does. `run` also receives the values that the parent feeds to the request while it runs."""
    # Libraries print to stdout, from Python and from C. Redirect that to stderr and keep a private descriptor for the replies.
    replies = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    for name in {"SIGINT", "SIGHUP"} & set(dir(signal)):  # a terminal sends them to both processes; the parent ends this one after it has
        signal.signal(getattr(signal, name), signal.SIG_IGN)  # saved its work
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")  # if memory runs out, the kernel kills this process and not the parent

    writing = threading.Lock()

    def send(message: dict[str, Any]) -> None:
        try:
            with writing:
                print(json.dumps(message), file=replies, flush=True)
        except BrokenPipeError:
            os._exit(1)  # the parent is gone

    messages = _messages_of_stdin()
    while True:
        message, _ = messages.get()
        if "request" not in message:
            continue  # fed to a request that has ended
        request, problems = json_dataclass.load(request_type, message["request"])
        assert request is not None, problems
        try:
            result = run(request, lambda progress: send({"progress": progress}), _feed_of(messages))
            send({"result": None if result is None else json_dataclass.dump(result)})
        except ToolkitError as error:
            send({"error": str(error), "code": error.code})
        except Exception as error:
            logger.debug("%s failed", request_type.__name__, exc_info=True)
            send({"error": f"{type(error).__name__}: {first_line(error)}", "code": None})
            sys.exit(1)


Messages: TypeAlias = "SimpleQueue[tuple[dict[str, Any], bytes]]"


def _feed_of(messages: Messages) -> Feed:
    """Yield what is fed to the running request."""
    while True:
        message, content = messages.get()
        if message["feed"] is None:
            return
        yield message["feed"], content


def _messages_of_stdin() -> Messages:
    """Read messages in a thread that exits the process when stdin ends, since a request may take long or never end."""
    messages: Messages = SimpleQueue()

    def read() -> None:
        buffer = bytearray()

        def more() -> None:
            if not (part := os.read(0, 1 << 20)):  # not sys.stdin: a thread that waits in it would block the exit of the interpreter
                os._exit(0)
            buffer.extend(part)

        while True:
            while (end := buffer.find(b"\n")) < 0:
                more()
            message = json.loads(buffer[:end])
            del buffer[: end + 1]
            while len(buffer) < (size := message.get("bytes", 0)):
                more()
            messages.put((message, bytes(buffer[:size])))
            del buffer[:size]

    threading.Thread(target=read, daemon=True).start()
    return messages
