"""Who may send a request: the header Host, the header Origin, and the token.

A page of another site can make a browser send requests to a server on this machine. Its requests have a foreign Origin, or, after DNS
rebinding, a foreign Host. An IP address as Host cannot be rebound.
"""

import hmac
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from runtimes.errors import RequestError, ToolkitError
from toolkit.serve.errors import ForbiddenError, HttpError, UnauthorizedError
from toolkit.serve.http.responses import error_response
from toolkit.serve.settings import Access

PROBES = frozenset({"/healthz", "/readyz"})
"""Paths that need neither a token nor a known Host."""
PUBLIC = PROBES | {"/"}
"""Paths that need no token. The page asks for it."""
MAX_TOKEN_FILE_BYTES = 65_536


def read_tokens(file: Path) -> tuple[str, ...]:
    """Return the tokens of a file, one per line.

    Raises:
        RequestError: The file cannot be read, is too large, has no token, or has a token with spaces or other characters than ASCII.
    """
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_TOKEN_FILE_BYTES + 1)
        lines = content.decode("ascii").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        problem = error.strerror if isinstance(error, OSError) else "is not ASCII"
        raise RequestError(f"{file}: token file: {problem}; write one token per line") from error
    tokens = tuple(filter(None, map(str.strip, lines)))
    if len(content) > MAX_TOKEN_FILE_BYTES or not tokens or any(not token.isprintable() or " " in token for token in tokens):
        raise RequestError(f"{file}: token file: it must have one token per line, without spaces, in at most {MAX_TOKEN_FILE_BYTES} bytes")
    return tokens


class AccessCheck:
    """Middleware that answers requests which may not be sent."""

    def __init__(self, app: ASGIApp, access: Access, head_bytes: int) -> None:
        self._app, self._hosts = app, frozenset(map(str.lower, (*access.hosts, "localhost")))
        self._head = head_bytes
        self._tokens = tuple(token.encode() for token in access.tokens)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, or pass it on."""
        if scope["type"] == "http" and (problem := self._problem(scope)) is not None:
            await error_response(problem)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _problem(self, scope: Scope) -> ToolkitError | None:
        path, headers = scope["path"], Headers(scope=scope)
        if (
            sum(len(name) + len(value) for name, value in scope["headers"]) + len(scope["raw_path"]) + len(scope["query_string"])
            > self._head
        ):
            return HttpError(f"the head of the request has more than {self._head:,} bytes")
        if path in PROBES:
            return None
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._is_known(host):
            return ForbiddenError("this server does not serve the Host of the request; name it with --allowed-host")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return ForbiddenError("the request comes from a page of another site")
        if self._tokens and path not in PUBLIC and not self._authorized(headers.get("authorization", "")):
            return UnauthorizedError()
        return None

    def _is_known(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name.lower().removesuffix(".") in self._hosts:
            return True
        try:
            ip_address(name)
        except ValueError:
            return False
        return True

    def _authorized(self, header: str) -> bool:
        """Compare with all tokens in constant time."""
        scheme, _, given = header.partition(" ")
        token = given.strip().encode()
        equal = [hmac.compare_digest(token, known) for known in self._tokens]
        return scheme.lower() == "bearer" and any(equal)
