"""Run the application with uvicorn: listen, report, drain on a signal, and return the exit code."""

import asyncio
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import uvicorn

from runtimes.errors import ToolkitError, UnavailableError
from toolkit.serve.app import create_app
from toolkit.serve.http.connection import bounded
from toolkit.serve.model.messages import Loaded
from toolkit.serve.model.supervisor import ModelObserver
from toolkit.serve.service import Service
from toolkit.serve.settings import Settings

logger = logging.getLogger(__name__)

GRACE_S = 5.0
"""Time of the last responses, after all requests were ended."""
BACKLOG = 1024
RESERVED_FILES = 64
"""File descriptors for other purposes than connections."""


class DrainingServer(uvicorn.Server):
    """A server that drains on SIGTERM, SIGINT and SIGHUP.

    First `/readyz` fails while requests are still accepted, for `drain_delay_s`. Then the server stops listening, and requests have
    `drain_s` to be answered. At a second signal, they get an error at once.
    """

    def __init__(self, config: uvicorn.Config, service: Service, drain_delay_s: float, drain_s: float) -> None:
        super().__init__(config)
        self._service, self._drain_delay_s, self._drain_s = service, drain_delay_s, drain_s
        self._exit_at, self._hurried = float("inf"), False
        self._loop: asyncio.AbstractEventLoop | None = None
        self.failure: ToolkitError | None = None
        """The error that ended the server."""
        self.unanswered = 0
        """Requests that got an error because the server shut down."""

    def fail(self, error: ToolkitError) -> None:
        """End the server because of an error."""
        self.failure = error
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Drain on signals while the body runs. uvicorn would raise the signals again afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handlers = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
        if (hangup := getattr(signal, "SIGHUP", None)) and signal.getsignal(hangup) != signal.SIG_IGN:  # `nohup` makes a process ignore it
            handlers[hangup] = signal.signal(hangup, self.handle_exit)
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; at the second signal, answer the requests in flight with an error; at the third, end."""
        if self._exit_at < float("inf") and self._loop is not None:
            self.force_exit, self.should_exit = self.should_exit and self._hurried, True
            self._hurried = True
            self._loop.call_soon_threadsafe(self._service.drain, 0.0)
        self._exit_at = min(self._exit_at, time.monotonic() + self._drain_delay_s)

    async def on_tick(self, counter: int) -> bool:
        """Follow the drain; uvicorn calls this ten times a second."""
        self._loop = asyncio.get_running_loop()
        if self._exit_at < float("inf") and not self._service.draining:
            logger.info("draining: %d requests are in flight", self._service.metrics.in_flight)
            self._service.drain(self._drain_delay_s + self._drain_s)
        self.should_exit = self.should_exit or time.monotonic() >= self._exit_at
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, wait for the requests in flight, and count those that are not answered in time."""
        before = self._service.ended_by_drain
        await super().shutdown(sockets)
        self.unanswered = self._service.ended_by_drain - before


def serve(
    settings: Settings, host: str, port: int, *, drain_delay_s: float, drain_s: float, report: Callable[[str], None] = logger.info
) -> None:
    """Serve until a signal.

    Args:
        settings: Artifact, limits and access.
        host: Address or name to listen on.
        port: Port; 0 chooses one.
        drain_delay_s: See `DrainingServer`.
        drain_s: See `DrainingServer`.
        report: Called with a line when the server listens, and one for each start of the model.

    Raises:
        UnavailableError: The server cannot listen on the address, or requests were not answered when the server shut down.
        ToolkitError: The model cannot be started, see `runtimes.load` and `toolkit.serve.model.process.check_model`.
    """
    listener = listen(host, port)
    servers: list[DrainingServer] = []
    observer = ModelObserver(on_loaded=lambda loaded: report(start_line(loaded)), on_failure=lambda error: servers[0].fail(error))
    app = create_app(settings, observer)
    config = uvicorn.Config(
        app,
        http=bounded(settings.limits),
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=int(settings.limits.head_s),
        h11_max_incomplete_event_size=settings.limits.head_bytes,
        timeout_graceful_shutdown=int(drain_s + GRACE_S) + 1,
        backlog=BACKLOG,
    )
    for noisy in ("uvicorn", "python_multipart"):  # they warn of every malformed request
        logging.getLogger(noisy).setLevel(logging.ERROR)
    server = DrainingServer(config, app.state.service, drain_delay_s, drain_s)
    servers.append(server)
    address, actual_port = listener.getsockname()[:2]
    report(f"Listening at http://{f'[{address}]' if ':' in address else address}:{actual_port}")
    logging.getLogger("uvicorn.error").addFilter(_is_no_cancellation)
    try:
        with asyncio.Runner() as runner:
            runner.get_loop().set_exception_handler(_log_system_error)
            runner.run(server.serve([listener]))
    except OSError as error:  # the event loop cannot be made, or cannot listen
        raise UnavailableError(f"the server cannot run: {error.strerror or error}; correct this on the machine and try again") from error
    finally:
        listener.close()
    if server.failure is not None:
        raise server.failure
    if server.unanswered:
        raise UnavailableError(f"{server.unanswered} requests were not answered within {drain_s:g} s of the shutdown; use a longer --drain")


def _log_system_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log one line if a system call of a connection failed; for another error, log its traceback."""
    if isinstance(error := context.get("exception"), OSError):
        logger.error("%s: %s", context["message"], error.strerror or error)
    else:
        loop.default_exception_handler(context)


def _is_no_cancellation(record: logging.LogRecord) -> bool:
    """Leave out the traceback of a startup that was cancelled: the error that cancelled it is raised."""
    return not record.getMessage().rstrip().endswith("CancelledError")  # Starlette passes tracebacks as text


def start_line(loaded: Loaded) -> str:
    """Return the line that reports a start of the model."""
    check = loaded.check
    return (
        f"Ready: {loaded.info['artifact']} loaded in {loaded.load_s:.1f} s; {check.kind}: {check.equal} of {check.results} equal "
        f"in {loaded.check_s:.1f} s; {loaded.run_s:.3f} s per image"
    )


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        UnavailableError: The name is unknown, the port is in use or needs privileges.
    """
    try:
        name = host.removeprefix("[").removesuffix("]")  # as IPv6 addresses are written in URLs
        family, kind, protocol, _, address = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise UnavailableError(f"{host}: the server cannot listen on this address: {error}; use another --host") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise UnavailableError(
            f"{host}:{port}: the server cannot listen on this address: {error.strerror}; use another --port or --host"
        ) from error
    return listener


def max_connections() -> int:
    """Return the number of connections that the limit of open files allows."""
    with suppress(ImportError):
        import resource

        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if soft != resource.RLIM_INFINITY:
            return max(16, soft - RESERVED_FILES)
    return 512
