"""Run the batches of a throughput measurement in this process (a worker of `runtimes.workers`).

The request is the job of a case with its images, which are run first as a warm-up, as many as fit into a batch. Then it is fed
lists of indices into the images.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

from runtimes.engine_registry import load_target
from runtimes.workers.child import Feed, Send, serve_feed
from toolkit.bench.job import CaseJob
from toolkit.bench.tasks.requests import REQUESTS, Requests


def run(job: CaseJob, send: Send, feed: Feed) -> None:
    """Run the model on what is fed, in `job.streams` threads; send the number of images of each batch and the first error."""
    requests: Requests = load_target(REQUESTS[job.task])(load_target(job.opener)(Path(job.path), job)(), job)
    for _ in range(job.warmup):
        requests.run(range(min(job.batch_size, len(job.images))))
    send(0)
    batches = _Locked(feed)

    def work() -> None:
        for indices, _ in batches:
            responses = requests.run(indices)
            errors = [each.error for each in responses if each.error]
            send({"images": len(responses), "error": errors[0] if errors else None})

    with ThreadPoolExecutor(job.streams) as pool:
        for future in [pool.submit(work) for _ in range(job.streams)]:
            future.result()


class _Locked:
    """An iterator for several threads."""

    def __init__(self, feed: Feed) -> None:
        self._feed, self._lock = feed, Lock()

    def __iter__(self) -> Iterator[tuple[list[int], bytes]]:
        return self

    def __next__(self) -> tuple[list[int], bytes]:
        with self._lock:
            return next(self._feed)


if __name__ == "__main__":
    serve_feed(CaseJob, run)
