"""A worker for tests that returns what is fed to a request."""

import hashlib
from dataclasses import dataclass

from runtimes.workers.child import Feed, Send, serve_feed


@dataclass(frozen=True, kw_only=True)
class FedRequest:
    count: int
    """Number of values to take; the rest is left."""


@dataclass(frozen=True, kw_only=True)
class FedResult:
    taken: int


def run(request: FedRequest, send: Send, feed: Feed) -> FedResult:
    taken = 0
    send(None)  # the request is running
    for taken, (value, content) in enumerate(feed, start=1):
        send({"value": value, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()})
        if taken == request.count:
            break
    return FedResult(taken=taken)


if __name__ == "__main__":
    serve_feed(FedRequest, run)
