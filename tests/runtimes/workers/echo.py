"""A worker for tests that performs the action of its request."""

import os
import time
from dataclasses import dataclass

from runtimes.errors import RequestError
from runtimes.workers.child import Send, serve


@dataclass(frozen=True, kw_only=True)
class EchoRequest:
    action: str
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class EchoResult:
    text: str
    process: int


def run(request: EchoRequest, send: Send) -> EchoResult:
    print("a library prints")
    os.write(1, b"so does C\n")
    send({"text": request.text})
    if request.action == "refuse":
        raise RequestError(request.text)
    if request.action == "fail":
        raise KeyError(request.text)
    if request.action == "kill":
        os.kill(os.getpid(), 9)
    if request.action == "exit":
        os.write(2, b"some words\nlibfoo.so is missing\n")
        os._exit(3)
    if request.action == "sleep":
        time.sleep(60)
    return EchoResult(text=request.text[::-1], process=os.getpid())


if __name__ == "__main__":
    serve(EchoRequest, run)
