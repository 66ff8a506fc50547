"""The ASGI application: routes of the tasks, probes, metrics, information, the OpenAPI document and the page."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from runtimes.errors import ToolkitError
from toolkit.serve.errors import InternalError, MethodError, NotFoundError, NotReadyError, status_of
from toolkit.serve.http.access import AccessCheck
from toolkit.serve.http.openapi import openapi_document
from toolkit.serve.http.page import page_response
from toolkit.serve.http.responses import NO_STORE, error_response, json_response
from toolkit.serve.metrics import CONTENT_TYPE
from toolkit.serve.model.supervisor import ModelObserver
from toolkit.serve.service import ClientGoneError, Service, TaskResponse
from toolkit.serve.settings import Settings
from toolkit.serve.tasks import TASKS

logger = logging.getLogger(__name__)

CLIENT_GONE = 499
"""Status in logs and metrics of a request whose client is gone. It is not sent."""


def create_app(settings: Settings, observer: ModelObserver | None = None) -> Starlette:
    """Return the application. The server that runs it starts the model process at startup and kills it at shutdown.

    Args:
        settings: Artifact, limits and access.
        observer: Functions that are called when the model is ready, or cannot be started.
    """
    service = Service(settings, observer or ModelObserver())

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        running = asyncio.create_task(service.model.run())
        try:
            yield
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running

    app = Starlette(
        routes=[
            *(Route(task.path, _task_endpoint(service, name), methods=["POST"]) for name, task in TASKS.items()),
            Route("/healthz", _get(lambda: _health(service))),
            Route("/readyz", _ready_endpoint(service)),
            Route("/metrics", _get(lambda: Response(service.metrics.exposition(), headers=NO_STORE | {"content-type": CONTENT_TYPE}))),
            Route("/v1/info", _get(lambda: json_response(_info(service)))),
            Route("/openapi.json", _get(lambda: json_response(openapi_document(settings)))),
            Route("/", _get(page_response)),
        ],
        middleware=[Middleware(AccessCheck, access=settings.access, head_bytes=settings.limits.head_bytes)],
        exception_handlers={ToolkitError: _toolkit_error, HTTPException: _http_error, Exception: _internal_error},
        lifespan=lifespan,
    )
    app.state.service = service
    return app


def _task_endpoint(service: Service, task: str) -> Callable[[Request], Any]:
    path = TASKS[task].path

    async def endpoint(request: Request) -> Response:
        received_at = request.scope.get("state", {}).get("received_at", asyncio.get_running_loop().time())
        with service.counted():
            try:
                answer = await service.answer(request, task, received_at)
                response = _answer_response(answer)
                status = response.status_code
            except ToolkitError as error:
                response, status = error_response(error), status_of(error.code)
            except ClientGoneError:
                response, status = Response(status_code=400), CLIENT_GONE
        seconds = asyncio.get_running_loop().time() - received_at
        service.metrics.requests.add(path=path, status=str(status))
        service.metrics.request_seconds.observe(seconds, path=path)
        logger.info("%s %d %.3f s", path, status, seconds)
        if service.draining:
            response.headers["connection"] = "close"
        return response

    return endpoint


def _answer_response(answer: TaskResponse) -> Response:
    """Return the rows of a request. If all images failed, the response is that of the first error."""
    failed = [row for row in answer.rows if "error" in row]
    timing = ", ".join(f"{name.removesuffix('_s')};dur={1000 * seconds:.1f}" for name, seconds in answer.timings.items())
    if len(failed) == len(answer.rows):
        content = {"error": failed[0]["error"], "code": failed[0]["code"], "rows": failed}
        return json_response(content, status_of(failed[0]["code"]), {"server-timing": timing})
    return json_response({"rows": answer.rows, "timings": answer.timings}, headers={"server-timing": timing})


def _get(respond: Callable[[], Response]) -> Callable[[Request], Any]:
    """Return an endpoint in the event loop; Starlette runs plain functions in threads, which a busy machine makes wait."""

    async def endpoint(request: Request) -> Response:
        return respond()

    return endpoint


def _health(service: Service) -> Response:
    alive = service.model.stage != "failed" and not service.model.stalled()
    return json_response({"alive": alive, "stage": service.model.stage}, 200 if alive else 503)


def _ready_endpoint(service: Service) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        service.check_ready()
        wait_s, most_s = service.model.wait_s(), service.settings.limits.max_wait_s
        if request.query_params.get("fail_if_full") == "1" and wait_s > most_s:
            raise NotReadyError(f"the queued work takes {wait_s:.1f} s", wait_s - most_s)
        return json_response({"ready": True})

    return endpoint


def _info(service: Service) -> dict[str, Any]:
    loaded = service.model.loaded
    return {
        "version": version("blip-toolkit"),
        "stage": service.model.stage,
        "limits": asdict(service.settings.limits),
        "max_batch": service.settings.job.max_batch,
        "tasks": {name: task.path for name, task in TASKS.items() if loaded is None or loaded.info["task"] == name},
        "model": None if loaded is None else loaded.info,
        "check": None if loaded is None else asdict(loaded.check),
        "start": None if loaded is None else {"load_s": loaded.load_s, "check_s": loaded.check_s, "run_s": loaded.run_s},
    }


async def _toolkit_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ToolkitError)
    return error_response(error)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = json.dumps(request.url.path[:100])
    if error.status_code == 405:
        response: Response = error_response(MethodError(f"{path} does not accept {request.method}"))
        response.headers.update(error.headers or {})
        return response
    return error_response(NotFoundError(f"no such path: {path}; GET /openapi.json describes all paths"))


async def _internal_error(request: Request, error: Exception) -> Response:
    return error_response(InternalError("the server failed on this request; its log has the reason"))
