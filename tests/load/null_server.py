"""A server without a model, with the stack of `toolkit serve`: `python -m tests.load.null_server PORT`."""

import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


async def caption(request: Request) -> Response:
    return JSONResponse({"bytes": len(await request.body())})


async def healthz(request: Request) -> Response:
    return JSONResponse({})


if __name__ == "__main__":
    app = Starlette(routes=[Route("/v1/caption", caption, methods=["POST"]), Route("/healthz", healthz)])
    uvicorn.run(app, port=int(sys.argv[1]), log_level="error", http="h11")
