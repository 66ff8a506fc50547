"""The page at `/`: one static file with its own style and script, which the Content-Security-Policy names by their hashes."""

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files

from starlette.responses import Response


@cache
def _page() -> tuple[bytes, str]:
    """Return the file and its policy. It loads nothing, connects to this server only, and shows images from memory."""
    content = files("toolkit.serve.http").joinpath("page.html").read_text(encoding="utf-8")
    rules = [
        "default-src 'none'",
        f"script-src {_hashes('script', content)}",
        f"style-src {_hashes('style', content)}",
        "img-src blob: data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
    return content.encode(), "; ".join(rules)


def _hashes(element: str, content: str) -> str:
    texts = re.findall(rf"<{element}>(.*?)</{element}>", content, re.DOTALL)
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in texts)


def page_response() -> Response:
    """Return the page."""
    content, policy = _page()
    headers = {
        "content-type": "text/html; charset=utf-8",
        "content-security-policy": policy,
        "cache-control": "no-cache",
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
    }
    return Response(content, headers=headers)
