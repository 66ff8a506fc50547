"""A worker for tests: it does what its question says."""

import os
import time
from dataclasses import dataclass

from runtimes.errors import RequestError
from runtimes.workers.child import Send, serve


@dataclass(frozen=True, kw_only=True)
class Question:
    deed: str
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Answer:
    text: str
    process: int


def run(question: Question, send: Send) -> Answer:
    print("a library prints")
    os.write(1, b"so does C\n")
    send({"text": question.text})
    if question.deed == "refuse":
        raise RequestError(question.text)
    if question.deed == "fail":
        raise KeyError(question.text)
    if question.deed == "kill":
        os.kill(os.getpid(), 9)
    if question.deed == "exit":
        os.write(2, b"some words\nlibfoo.so is missing\n")
        os._exit(3)
    if question.deed == "sleep":
        time.sleep(60)
    return Answer(text=question.text[::-1], process=os.getpid())


if __name__ == "__main__":
    serve(Question, run)
