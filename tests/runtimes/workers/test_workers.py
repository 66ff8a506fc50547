"""The protocol between a process and its worker: progress, results, errors, and how a process ended."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from runtimes.errors import RequestError
from runtimes.workers.parent import Worker, describe_exit, request_once
from tests.paths import ROOT
from tests.runtimes.workers.echo import Answer, Question

ECHO = "tests.runtimes.workers.echo"


def test_one_process_answers_many_questions():
    with Worker(ECHO) as worker:
        answers = []
        for text in ("one", "größer", "a\nb", "\udcff"):
            assert list(worker.request(Question(deed="echo", text=text))) == [{"text": text}]
            answers.append(worker.result)
    assert [answer["text"] for answer in answers] == ["eno", "reßörg", "b\na", "\udcff"]
    assert len({answer["process"] for answer in answers} | {os.getpid()}) == 2
    assert not psutil.pid_exists(answers[0]["process"])


def test_a_question_may_be_larger_than_a_pipe():
    seen = []
    answer, error = request_once(ECHO, Question(deed="echo", text="ab" * 500_000), Answer, threads=1, on_progress=seen.append)
    assert (answer.text, error) == ("ba" * 500_000, None)
    assert seen == [{"text": "ab" * 500_000}]


def test_an_error_of_ours_is_raised_and_the_process_goes_on():
    with Worker(ECHO) as worker:
        with pytest.raises(RequestError, match=r"^not this$"):
            list(worker.request(Question(deed="refuse", text="not this")))
        list(worker.request(Question(deed="echo", text="ab")))
        assert worker.result["text"] == "ba"
    assert request_once(ECHO, Question(deed="refuse", text="not this"), Answer, threads=1) == (None, "not this")


@pytest.mark.parametrize(
    ("deed", "death"),
    [
        ("fail", "KeyError: 'no such'"),
        ("kill", "SIGKILL, perhaps out of memory"),
        ("exit", "libfoo.so is missing"),
    ],
)
def test_how_a_process_ended_is_told(deed, death):
    with Worker(ECHO) as worker:
        assert list(worker.request(Question(deed=deed, text="no such"))) == [{"text": "no such"}]
        assert (worker.result, worker.exit_reason) == (None, death)
    assert request_once(ECHO, Question(deed=deed, text="no such"), Answer, threads=1) == (None, f"its process ended: {death}")


def test_a_late_answer_ends_the_process():
    with Worker(ECHO, seconds=0.5) as worker:
        list(worker.request(Question(deed="sleep")))
    assert worker.exit_reason == "no answer within 0.5 s"


def test_a_module_that_is_none_says_so():
    result, error = request_once("tests.runtimes.workers.none", Question(deed="echo"), Answer, threads=1)
    assert result is None
    assert "No module named" in error


PARENT = f"""
import os, sys
from runtimes.workers.parent import Worker
from tests.runtimes.workers.echo import Question
worker = Worker({ECHO!r})
next(worker.request(Question(deed="sleep")))
print(worker._child.pid, flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.mark.slow  # waits for processes to end
def test_a_worker_ends_with_its_parent():
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-c", PARENT], capture_output=True, text=True, env=environment, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    until = time.monotonic() + 30
    while psutil.pid_exists(int(ended.stdout)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not psutil.pid_exists(int(ended.stdout))


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (0, "exit code 0"),
        (3221225477, "exit code 3221225477"),
        (-11, "SIGSEGV"),
        (-9, "SIGKILL, perhaps out of memory"),
        (-39, "signal 39"),
    ],
)
def test_an_end_has_a_name(status, said):
    assert describe_exit(status) == said
