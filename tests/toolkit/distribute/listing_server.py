"""An S3 server that lists a folder of any number of keys without storing them: `python -m tests.toolkit.distribute.listing_server COUNT`.

The keys of bucket `data` are `images/0000000.jpg` and so on; `images/FOLDER/0000000.jpg` with `--per-folder N`. Only listing works.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

FOLDER = "data/images"
PAGE = 1000
"""Keys per answer, as many as S3 returns."""


def names(prefix: str, count: int, per_folder: int | None) -> tuple[range, str]:
    """Return the numbers of the entries below a prefix, and their names as a format string; those of folders end with a slash."""
    if prefix == "images/":
        return (range(count), "{:07}.jpg") if per_folder is None else (range(-(-count // per_folder)), "{:05}/")
    if per_folder is not None and (match := re.fullmatch(r"images/(\d{5})/", prefix)):
        start = int(match[1]) * per_folder
        return range(start, min(count, start + per_folder)), "{:07}.jpg"
    return range(0), ""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    count, per_folder = 0, None

    def do_HEAD(self):
        path = urlsplit(self.path).path.strip("/")
        self.send_response(200 if path == "data" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self):
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        prefix = query.get("prefix", "")
        numbers, form = names(prefix, self.count, self.per_folder)
        size = min(PAGE, int(query.get("max-keys", PAGE)))
        begin = int(query.get("continuation-token", 0))
        page, more = numbers[begin : begin + size], begin + size < len(numbers)
        entries = []
        for number in page:
            name = prefix + form.format(number)
            entries.append(
                f"<CommonPrefixes><Prefix>{name}</Prefix></CommonPrefixes>"
                if name.endswith("/")
                else f"<Contents><Key>{name}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><Size>1</Size></Contents>"
            )
        token = f"<NextContinuationToken>{begin + size}</NextContinuationToken>" if more else ""
        body = (
            f'<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>data</Name><Prefix>{prefix}</Prefix>'
            f"<KeyCount>{len(page)}</KeyCount><IsTruncated>{str(more).lower()}</IsTruncated>{token}{''.join(entries)}</ListBucketResult>"
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def listing_server(count: int, per_folder: int | None = None) -> Iterator[str]:
    """Start the server in a process of its own and yield its address."""
    command = [sys.executable, "-m", "tests.toolkit.distribute.listing_server", str(count)]
    command += [] if per_folder is None else ["--per-folder", str(per_folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.toolkit.distribute.listing_server")
    parser.add_argument("count", type=int)
    parser.add_argument("--per-folder", type=int)
    options = parser.parse_args()
    Handler.count, Handler.per_folder = options.count, options.per_folder
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
