"""A connection of uvicorn with bounds: on the time of a request's head, on the rest of a refused body, and on open connections."""

import asyncio
import json

import h11
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from toolkit.serve.errors import HttpError, OverloadedError, status_of
from toolkit.serve.settings import Limits


class Connection(H11Protocol):
    """An HTTP/1.1 connection.

    uvicorn closes a connection that is idle between two requests. This class also closes one that does not complete the head of a request
    in time, and one that keeps sending the body of a request that was answered. It passes the time of a request's first byte to the
    application as `scope["state"]["received_at"]`, in seconds of the event loop's clock.
    """

    limits = Limits()
    """Set by `bounded`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Close the longest idle connection if there are too many; without an idle one, refuse this one."""
        self._head_since = self.loop.time()
        self._closing: asyncio.TimerHandle | None = None
        super().connection_made(transport)
        self._close_after(self.limits.head_s)
        if len(self.connections) > self.limits.connections:
            idle = [each for each in self.connections if isinstance(each, Connection) and each is not self and each.is_idle]
            if idle:
                min(idle, key=lambda each: each._head_since).transport.abort()
            else:
                self._refuse(OverloadedError("too many connections are open", 1))

    @property
    def is_idle(self) -> bool:
        """True if no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._keep_open()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Note when a request begins."""
        if self.is_idle and self.conn.their_state is h11.IDLE and self._closing is None:
            self._head_since = self.loop.time()
            self._close_after(self.limits.head_s)
        super().data_received(data)

    def handle_events(self) -> None:
        """Handle what has arrived. When a head is complete, its time limit ends and the one of the request begins."""
        self.app_state["received_at"] = self._head_since
        super().handle_events()
        if self.conn.their_state is not h11.IDLE and not self.is_idle:
            self._keep_open()

    def on_response_complete(self) -> None:
        """Bound the time in which the rest of the body of an answered request may arrive."""
        if self.conn.their_state is h11.SEND_BODY:
            self._close_after(self.limits.head_s)
        else:
            self._keep_open()
        self._head_since = self.loop.time()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP request, or a head that is too long."""
        self._refuse(HttpError(f"this is not an HTTP/1.1 request, or its head has more than {self.limits.head_bytes:,} bytes"))

    def _refuse(self, error: HttpError | OverloadedError) -> None:
        status, body = status_of(error.code), json.dumps({"error": str(error), "code": error.code}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), (b"connection", b"close")]
        if isinstance(error, OverloadedError):
            headers.append((b"retry-after", str(error.retry_after_s).encode()))
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            for event in (
                h11.Response(status_code=status, headers=headers, reason=STATUS_PHRASES[status]),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event))
        self.transport.close()

    def _close_after(self, seconds: float) -> None:
        self._keep_open()
        self._closing = self.loop.call_later(seconds, self._abort)

    def _keep_open(self) -> None:
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None

    def _abort(self) -> None:
        self.transport.abort()


def bounded(limits: Limits) -> type[Connection]:
    """Return the class of connections with these limits, for uvicorn's argument `http`."""
    return type("BoundedConnection", (Connection,), {"limits": limits})
