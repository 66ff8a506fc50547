"""A model hub on loopback: the part of the hub's HTTP interface that `huggingface_hub.snapshot_download` uses."""

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote


@dataclass
class Hub:
    """Repositories and what was requested from them."""

    revisions: dict[str, Path]
    """Revision → folder with its files; the repository's name does not matter unless it contains "missing"."""
    cut: set[str] = field(default_factory=set)
    """Names of files whose next response ends after half of its bytes."""
    always_cut: set[str] = field(default_factory=set)
    """Names of files of which every response ends early, without progress."""
    served: list[tuple[str, str | None]] = field(default_factory=list)
    """File and Range header of each GET of a file."""
    url: str = ""


def commit_of(folder: Path) -> str:
    """Return a commit id that depends on the files."""
    names = "".join(f"{path.name}{path.stat().st_size}" for path in sorted(folder.iterdir()))
    return hashlib.sha1(names.encode(), usedforsecurity=False).hexdigest()


@contextmanager
def running_hub(**revisions: Path) -> Iterator[Hub]:
    """Serve folders as revisions of every repository until the body ends."""
    hub = Hub(revisions)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            parts = [unquote(part) for part in self.path.split("?")[0].strip("/").split("/")]
            if any("missing" in part for part in parts):
                return self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            if any("gated" in part for part in parts):
                return self.answer(403, b"{}", {"X-Error-Code": "GatedRepo"})
            if parts[:2] == ["api", "models"]:
                folder = hub.revisions.get(parts[5]) if len(parts) > 5 else hub.revisions["main"]
                if folder is None:
                    return self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
                files = [{"rfilename": path.name} for path in sorted(folder.iterdir())]
                return self.answer(200, json.dumps({"id": "a/b", "sha": commit_of(folder), "siblings": files}).encode(), {})
            revision, name = parts[3], parts[4]
            folder = next((path for path in hub.revisions.values() if commit_of(path) == revision), hub.revisions.get(revision))
            if folder is None or not (folder / name).is_file():
                return self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
            content = (folder / name).read_bytes()
            headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": commit_of(folder), "Accept-Ranges": "bytes"}
            if self.command == "HEAD":
                return self.answer(200, content, headers)
            wanted = self.headers.get("Range")
            hub.served.append((name, wanted))
            start = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
            rest = content[start:]
            if wanted:
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            if name in hub.always_cut:
                return self.answer(206 if wanted else 200, rest, headers, sent=0)
            if name in hub.cut:
                hub.cut.discard(name)
                return self.answer(206 if wanted else 200, rest, headers, sent=len(rest) // 2)
            return self.answer(206 if wanted else 200, rest, headers)

        def answer(self, status: int, body: bytes, headers: dict[str, str], sent: int | None = None) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body[:sent])
            self.close_connection = sent is not None

        def log_message(self, *arguments: object) -> None:
            """Print nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
