"""The service behind the routes: one request from its body to its rows, under one deadline."""

import asyncio
import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from starlette.requests import Request

from runtimes.errors import RequestError, ToolkitError
from toolkit.serve.admission import Admission, Buffer
from toolkit.serve.errors import BodyTooLargeError, DeadlineError, NotFoundError, NotReadyError, SlowRequestError
from toolkit.serve.http.request_body import OptionForms, RequestBody, parse_request
from toolkit.serve.model.messages import ItemResult, WorkItem
from toolkit.serve.model.supervisor import ModelObserver, ModelSupervisor, Work
from toolkit.serve.service_metrics import ServiceMetrics
from toolkit.serve.settings import Settings
from toolkit.serve.tasks import TASKS, check_options, option_values, run_size

SMALL_BODY = 65_536
"""A larger form or JSON document is parsed in a thread."""


class ClientGoneError(Exception):
    """The client closed its connection before the answer."""


@dataclass(frozen=True, kw_only=True)
class TaskResponse:
    """The rows of a request, and where its time went."""

    rows: list[dict[str, Any]]
    timings: dict[str, float]
    """Seconds: queue (until the first image was run), read, encode, decode (sums over images), total."""


@dataclass(kw_only=True)
class Arrival:
    """State of a request for its deadline."""

    received: bool = False
    works: list[Work] = field(default_factory=list)


class Service:
    """Requests to the model.

    Args:
        settings: Artifact and limits.
        observer: See `ModelSupervisor`.
    """

    def __init__(self, settings: Settings, observer: ModelObserver) -> None:
        self.settings = settings
        self.model = ModelSupervisor(replace(settings.job, max_pixels=settings.limits.max_pixels), observer)
        self.admission = Admission(self.model, settings.limits)
        self.metrics = ServiceMetrics(self.model, self.admission)
        self.draining = False
        self.ended_by_drain = 0
        """Requests that were not answered before the end of a drain."""
        self._drain_deadline = float("inf")
        self._timeouts: set[asyncio.Timeout] = set()
        self._numbers = itertools.count()

    def drain(self, seconds: float) -> None:
        """Report "not ready" from now on, and end the requests that are not answered after some seconds."""
        self.draining = True
        self._drain_deadline = asyncio.get_running_loop().time() + seconds
        for timeout in self._timeouts:
            when = timeout.when()
            timeout.reschedule(self._drain_deadline if when is None else min(when, self._drain_deadline))

    def check_ready(self) -> None:
        """Raise an error unless requests can be answered at once.

        Raises:
            NotReadyError: The model process is being started, or the server is shutting down.
        """
        if self.draining:
            raise NotReadyError("it is shutting down", 1)
        if self.model.stage != "ready":
            raise NotReadyError(f"the model is {self.model.stage}", self.model.wait_s())

    async def answer(self, request: Request, task: str, received_at: float) -> TaskResponse:
        """Answer a request to run a task.

        Args:
            request: The request; its body has not been read.
            task: Name of the task.
            received_at: Loop time of its first byte.

        Raises:
            ToolkitError: The request is refused, or it fails as a whole.
            ClientGoneError: The client is gone. Its work was abandoned.
        """
        limit_s = self.settings.limits.timeout_s
        deadline = min(received_at + limit_s, self._drain_deadline)
        arrival = Arrival()
        try:
            with self.admission.buffer() as buffer:
                async with asyncio.timeout_at(deadline) as timeout:
                    self._timeouts.add(timeout)
                    try:
                        return await self._answer(request, task, received_at, buffer, arrival)
                    finally:
                        self._timeouts.discard(timeout)
                        self.model.abandon(arrival.works)
        except TimeoutError as error:
            if isinstance(error, ToolkitError):
                raise
            if asyncio.get_running_loop().time() < received_at + limit_s:
                self.ended_by_drain += 1
                raise NotReadyError("it is shutting down", 1) from error
            raise DeadlineError(limit_s) if arrival.received else SlowRequestError(limit_s) from error

    async def _answer(self, request: Request, task: str, received_at: float, buffer: Buffer, arrival: Arrival) -> TaskResponse:
        self.admission.check()
        self._check_task(task)
        if (encoding := request.headers.get("content-encoding", "").strip().lower()) not in ("", "identity"):
            raise RequestError(f"the body has Content-Encoding {encoding[:20]!a}, which this server does not decode; send it as it is")
        body = await self._read_body(request, buffer)
        arrival.received = True
        forms, limits = OptionForms(texts=TASKS[task].texts, lists=TASKS[task].lists), self.settings.limits
        arguments = request.headers.get("content-type", ""), request.url.query.encode(), body, forms, limits
        parsed = parse_request(*arguments) if len(body) <= SMALL_BODY else await asyncio.to_thread(parse_request, *arguments)
        del body, arguments
        options = check_options(task, parsed.options, limits)
        self.admission.check()  # other requests were admitted while the body arrived
        deadline = time.monotonic() + received_at + limits.timeout_s - asyncio.get_running_loop().time()
        arrival.works = self._works(parsed, task, options, deadline)
        self.model.submit(arrival.works)
        results = await self._results(request, arrival.works)
        return self._answer_of(results, arrival.works, received_at)

    def _check_task(self, task: str) -> None:
        assert self.model.loaded is not None
        actual = self.model.loaded.info["task"]
        if actual != task:
            raise NotFoundError(f"the task of this artifact is '{actual}', not '{task}'; send requests to {TASKS[actual].path}")

    async def _read_body(self, request: Request, buffer: Buffer) -> bytes:
        limit = self.settings.limits.body_bytes
        if int(request.headers.get("content-length", 0)) > limit:  # h11 has checked that it is a number
            raise BodyTooLargeError(limit)
        chunks: list[bytes] = []
        while True:
            message = await request.receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            if chunk := message.get("body", b""):
                chunks.append(chunk)
                if buffer.bytes + len(chunk) > limit:
                    raise BodyTooLargeError(limit)
                buffer.add(len(chunk))
            if not message.get("more_body", False):
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _works(self, parsed: RequestBody, task: str, options: object, deadline: float) -> list[Work]:
        values, size, loop = option_values(options), run_size(options), asyncio.get_running_loop()
        return [
            Work(
                message=WorkItem(id=next(self._numbers), name=name, task=task, options=values, deadline=deadline),
                content=content,
                size=size,
                result=loop.create_future(),
            )
            for name, content in parsed.images
        ]

    async def _results(self, request: Request, works: list[Work]) -> list[ItemResult]:
        """Wait for the results of all images, or until the client is gone."""
        gone = asyncio.create_task(_disconnected(request))
        waiting: set[asyncio.Future[Any]] = {work.result for work in works}
        try:
            while waiting:
                done, _ = await asyncio.wait({*waiting, gone}, return_when=asyncio.FIRST_COMPLETED)
                waiting -= done
                if gone in done and waiting:
                    raise ClientGoneError
            return [work.result.result() for work in works]
        finally:
            gone.cancel()

    def _answer_of(self, results: list[ItemResult], works: list[Work], received_at: float) -> TaskResponse:
        if any(result.row is None for result in results):  # the model process found the deadline passed before this process did
            raise TimeoutError
        rows = [result.row for result in results if result.row is not None]
        timings = {
            "queue_s": max(0.0, min(result.started - work.queued for result, work in zip(results, works, strict=True))),
            "read_s": sum(result.read_s for result in results),
            "encode_s": sum(result.encode_s for result in results),
            "decode_s": sum(result.decode_s for result in results),
            "total_s": asyncio.get_running_loop().time() - received_at,
        }
        self.metrics.add_images(results)
        return TaskResponse(rows=rows, timings={name: round(seconds, 6) for name, seconds in timings.items()})

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count a request as in flight."""
        self.metrics.in_flight += 1
        try:
            yield
        finally:
            self.metrics.in_flight -= 1


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
