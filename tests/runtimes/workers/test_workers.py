"""The protocol between a process and its worker: progress, results, errors and exit reasons."""

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
from tests.runtimes.workers.echo import EchoRequest, EchoResult

ECHO = "tests.runtimes.workers.echo"


def test_one_subprocess_handles_many_requests():
    with Worker(ECHO) as worker:
        results = []
        for text in ("one", "größer", "a\nb", "\udcff"):
            assert list(worker.request(EchoRequest(action="echo", text=text))) == [{"text": text}]
            results.append(worker.result)
    assert [result["text"] for result in results] == ["eno", "reßörg", "b\na", "\udcff"]
    assert len({result["process"] for result in results} | {os.getpid()}) == 2
    assert not psutil.pid_exists(results[0]["process"])


def test_a_request_may_be_larger_than_a_pipe():
    seen = []
    result, error = request_once(ECHO, EchoRequest(action="echo", text="ab" * 500_000), EchoResult, threads=1, on_progress=seen.append)
    assert (result.text, error) == ("ba" * 500_000, None)
    assert seen == [{"text": "ab" * 500_000}]


def test_a_toolkit_error_is_raised_and_the_subprocess_continues():
    with Worker(ECHO) as worker:
        with pytest.raises(RequestError, match=r"^not this$"):
            list(worker.request(EchoRequest(action="refuse", text="not this")))
        list(worker.request(EchoRequest(action="echo", text="ab")))
        assert worker.result["text"] == "ba"
    assert request_once(ECHO, EchoRequest(action="refuse", text="not this"), EchoResult, threads=1) == (None, "not this")


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        ("fail", "KeyError: 'no such'"),
        ("kill", "SIGKILL, perhaps out of memory"),
        ("exit", "libfoo.so is missing"),
    ],
)
def test_the_exit_reason_of_a_subprocess(action, reason):
    with Worker(ECHO) as worker:
        assert list(worker.request(EchoRequest(action=action, text="no such"))) == [{"text": "no such"}]
        assert (worker.result, worker.exit_reason) == (None, reason)
    assert request_once(ECHO, EchoRequest(action=action, text="no such"), EchoResult, threads=1) == (None, f"its process ended: {reason}")


def test_the_time_limit_ends_the_subprocess():
    with Worker(ECHO, seconds=0.5) as worker:
        list(worker.request(EchoRequest(action="sleep")))
    assert worker.exit_reason == "no answer within 0.5 s"


def test_a_module_that_does_not_exist():
    result, error = request_once("tests.runtimes.workers.none", EchoRequest(action="echo"), EchoResult, threads=1)
    assert result is None
    assert "No module named" in error


PARENT = f"""
import os, sys
from runtimes.workers.parent import Worker
from tests.runtimes.workers.echo import EchoRequest
worker = Worker({ECHO!r})
next(worker.request(EchoRequest(action="sleep")))
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
    ("status", "reason"),
    [
        (0, "exit code 0"),
        (3221225477, "exit code 3221225477"),
        (-11, "SIGSEGV"),
        (-9, "SIGKILL, perhaps out of memory"),
        (-39, "signal 39"),
    ],
)
def test_describe_exit(status, reason):
    assert describe_exit(status) == reason
