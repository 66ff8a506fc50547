"""JSON responses, and the response of an error."""

from typing import Any

from starlette.responses import JSONResponse

from runtimes.errors import ToolkitError
from toolkit.serve.errors import status_of

NO_STORE = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


def json_response(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> JSONResponse:  # noqa: ANN401 - a JSON value
    """Return a JSON response that no cache stores."""
    return JSONResponse(content, status, NO_STORE | (headers or {}))


def error_response(error: ToolkitError, rows: list[dict[str, Any]] | None = None) -> JSONResponse:
    """Return the response of an error: its text and code, and the rows of the images if there are several."""
    headers = {}
    if (seconds := getattr(error, "retry_after_s", None)) is not None:
        headers["retry-after"] = str(seconds)
    if error.code == "UNAUTHORIZED":
        headers["www-authenticate"] = "Bearer"
    content = {"error": str(error), "code": error.code, **({"rows": rows} if rows else {})}
    return json_response(content, status_of(error.code), headers)
