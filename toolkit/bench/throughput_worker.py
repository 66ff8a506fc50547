"""Caption the batches of a throughput measurement in this process (a worker of `runtimes.workers`).

The request is the job of a case with its images, which are captioned first as a warm-up, as many as fit into a batch. Then it is fed
lists of indices into the images.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

from runtimes.engine_registry import load_target
from runtimes.workers.child import Feed, Send, serve_feed
from toolkit.bench.job import CaseJob


def run(job: CaseJob, send: Send, feed: Feed) -> None:
    """Caption what is fed, in `job.streams` threads; send the number of images of each batch and the first error."""
    captioner = load_target(job.opener)(Path(job.path), job)().captioner
    options = {**job.decoding(captioner), "batch_size": job.batch_size}
    for _ in range(job.warmup):
        captioner.caption(job.images[: job.batch_size], **options)
    send(0)
    batches = _Locked(feed)

    def caption() -> None:
        for indices, _ in batches:
            captions = captioner.caption([job.images[index] for index in indices], **options)
            errors = [each.error for each in captions if each.error]
            send({"images": len(captions), "error": errors[0] if errors else None})

    with ThreadPoolExecutor(job.streams) as pool:
        for future in [pool.submit(caption) for _ in range(job.streams)]:
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
