"""Errors that only the HTTP server reports, and the HTTP status of every code.

They derive from `ToolkitError`, so that a client finds the same `error` and `code` in a response as a program finds in a row.
"""

import math

from runtimes.errors import ToolkitError


class OverloadedError(ToolkitError, ConnectionRefusedError):
    """The work in the queue exceeds the limit of waiting time, or the bodies in memory exceed theirs. Try again after `Retry-After`."""

    code = "OVERLOADED"

    def __init__(self, problem: str, retry_after_s: float) -> None:
        self.retry_after_s = max(1, math.ceil(retry_after_s))
        super().__init__(f"{problem}; try again in {self.retry_after_s} s")


class NotReadyError(ToolkitError, ConnectionRefusedError):
    """The model is being loaded, or the server is shutting down. Try again after `Retry-After`."""

    code = "NOT_READY"

    def __init__(self, stage: str, retry_after_s: float) -> None:
        self.retry_after_s = max(1, math.ceil(retry_after_s))
        super().__init__(f"the server is not ready: {stage}; try again in {self.retry_after_s} s")


class DeadlineError(ToolkitError, TimeoutError):
    """The request was not answered within the server's time limit; its work was abandoned."""

    code = "DEADLINE_EXCEEDED"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"not answered within {seconds:g} s; send fewer images, or ask for fewer beams or tokens")


class SlowRequestError(ToolkitError, TimeoutError):
    """The body of the request did not arrive within the server's time limit."""

    code = "REQUEST_SLOW"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the body did not arrive within {seconds:g} s; send a smaller image")


class BodyTooLargeError(ToolkitError, ValueError):
    """The body of the request has more bytes than the server accepts."""

    code = "BODY_TOO_LARGE"

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body has more than {limit:,} bytes; scale the image down, or send fewer")


class UnauthorizedError(ToolkitError, PermissionError):
    """The request has no token, or a wrong one."""

    code = "UNAUTHORIZED"

    def __init__(self) -> None:
        super().__init__("a token is needed: send the header 'Authorization: Bearer TOKEN' with a token of the server's token file")


class ForbiddenError(ToolkitError, PermissionError):
    """The request names a host that the server does not serve, or comes from a page of another site."""

    code = "FORBIDDEN"


class NotFoundError(ToolkitError, LookupError):
    """The server has no such path, or the artifact cannot do this task."""

    code = "NOT_FOUND"


class MethodError(ToolkitError, ValueError):
    """The path does not accept this HTTP method."""

    code = "METHOD_NOT_ALLOWED"


class HttpError(ToolkitError, ValueError):
    """The bytes are not an HTTP request, or its head is larger than the server accepts."""

    code = "HTTP_INVALID"


class InternalError(ToolkitError, RuntimeError):
    """A bug of the server; its log has the traceback."""

    code = "INTERNAL"


STATUS: dict[str, int] = {
    "REQUEST_INVALID": 400,
    "HTTP_INVALID": 400,
    "IMAGE_UNREADABLE": 400,
    "UNAUTHORIZED": 401,
    "FORBIDDEN": 403,
    "NOT_FOUND": 404,
    "METHOD_NOT_ALLOWED": 405,
    "REQUEST_SLOW": 408,
    "BODY_TOO_LARGE": 413,
    "IMAGE_TOO_LARGE": 422,
    "OVERLOADED": 429,
    "NOT_READY": 503,
    "ENVIRONMENT_FAILED": 503,
    "OUT_OF_MEMORY": 503,
    "DEADLINE_EXCEEDED": 504,
}
"""Code → HTTP status."""


def status_of(code: str) -> int:
    """Return the HTTP status of a code; 500 for those that are not in `STATUS`: errors of an engine, crashes."""
    return STATUS.get(code, 500)
