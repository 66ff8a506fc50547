"""Values and bytes that are fed to a running request."""

import hashlib
import threading

from runtimes.workers.parent import Worker
from tests.runtimes.workers.fed import FedRequest

FED = "tests.runtimes.workers.fed"
CONTENTS = (b"", b"\n", b'{"feed": null}\n', bytes(range(256)) * 10_000)


def test_a_running_request_receives_values_and_bytes_in_order():
    with Worker(FED) as worker:
        request = worker.request(FedRequest(count=len(CONTENTS) + 1))
        assert next(request) is None
        feeder = threading.Thread(target=lambda: [worker.feed({"index": i}, content) for i, content in enumerate(CONTENTS)])
        feeder.start()
        received = [next(request) for _ in CONTENTS]
        feeder.join()
        worker.feed(None)
        assert list(request) == []
        assert worker.result == {"taken": len(CONTENTS)}
    assert received == [
        {"value": {"index": i}, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()} for i, content in enumerate(CONTENTS)
    ]


def test_what_a_request_leaves_is_not_given_to_the_next_one():
    with Worker(FED) as worker:
        for number in range(2):
            request = worker.request(FedRequest(count=1))
            assert next(request) is None
            for _ in range(3):
                worker.feed(number, b"x" * number)
            worker.feed(None)
            assert [each["value"] for each in request] == [number]
            assert worker.result == {"taken": 1}


def test_a_killed_worker_ends_the_request_and_later_values_are_dropped():
    with Worker(FED) as worker:
        request = worker.request(FedRequest(count=2))
        assert next(request) is None
        worker.feed("first")
        assert next(request)["value"] == "first"
        worker.kill()
        assert list(request) == []
        worker.feed("late", b"x" * 1_000_000)
        assert (worker.result, worker.exit_reason.partition(",")[0]) == (None, "SIGKILL")
