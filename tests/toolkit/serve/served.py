"""A server in a thread for tests, and clients of it."""

import asyncio
import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn

from toolkit.serve.app import create_app
from toolkit.serve.http.connection import bounded
from toolkit.serve.server import DrainingServer, listen
from toolkit.serve.service import Service
from toolkit.serve.settings import Settings

PATIENCE_S = 120
CAPTION = "/v1/caption"


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def code(self):
        return self.json["code"]


@dataclass(frozen=True)
class Served:
    """A running server."""

    port: int
    service: Service

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)

    def send(self, method, path, body=None, headers=None) -> Reply:
        connection = self.connect()
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        reply = Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
        connection.close()
        return reply

    def get(self, path, **headers) -> Reply:
        return self.send("GET", path, headers=headers)

    def post(self, body, query="", content_type="image/png", **headers) -> Reply:
        return self.send("POST", CAPTION + query, body, {"content-type": content_type, **headers})

    def post_json(self, document) -> Reply:
        return self.post(json.dumps(document), content_type="application/json")

    def until(self, condition) -> None:
        """Wait for a condition of the service."""
        end = time.monotonic() + PATIENCE_S
        while not condition(self.service):
            assert time.monotonic() < end
            assert self.service.model.stage != "failed"
            time.sleep(0.01)

    @contextmanager
    def stopped_model(self) -> Iterator[None]:
        """Suspend the model process: requests wait until the block ends."""
        process = self.service.model.process_id
        os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(process, signal.SIGCONT)


@contextmanager
def served(settings: Settings, *, wait: bool = True) -> Iterator[Served]:
    """Run a server in a thread; with `wait`, yield it when its model is ready."""
    app = create_app(settings)
    listener = listen("127.0.0.1", 0)
    limits = settings.limits
    config = uvicorn.Config(
        app,
        http=bounded(limits),
        ws="none",
        log_config=None,
        access_log=False,
        timeout_keep_alive=1,
        h11_max_incomplete_event_size=limits.head_bytes,
    )
    server = DrainingServer(config, app.state.service, 0, 1)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])), daemon=True)
    thread.start()
    running = Served(listener.getsockname()[1], app.state.service)
    try:
        if wait:
            running.until(lambda service: service.model.stage == "ready")
        yield running
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def multipart(files, fields=()) -> tuple[bytes, str]:
    """Return the body and the content type of a form; files have a name and content."""
    boundary = "0123456789abcdef"
    parts = [f'Content-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + value.encode() for name, value in fields]
    parts += [f'Content-Disposition: form-data; name="images"; filename="{name}"\r\n\r\n'.encode() + content for name, content in files]
    body = b"".join(b"--" + boundary.encode() + b"\r\n" + part + b"\r\n" for part in parts) + b"--" + boundary.encode() + b"--\r\n"
    return body, f"multipart/form-data; boundary={boundary}"
