"""System calls of `toolkit serve` that fail: `python -m tests.faults.serving ARTIFACT`; part of `make faults`.

The server writes no file, so the calls are those of its sockets, pipes and processes, in the thread of its event loop. What must hold: the
server ends with one line and exit code 1, or it serves; then at most one request fails, the next one is answered, and SIGTERM ends it with
exit code 0.
"""

import argparse
import contextlib
import http.client
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from toolkit.datasets import load_dataset

ERRORS = {
    "socket": ("EMFILE", "EACCES", "EAFNOSUPPORT"),
    "setsockopt": ("ENOMEM", "EINVAL"),
    "bind": ("EADDRINUSE", "EACCES", "EADDRNOTAVAIL"),
    "listen": ("EADDRINUSE", "EOPNOTSUPP"),
    "accept4": ("ECONNABORTED", "EMFILE", "ENOMEM", "EPERM"),
    "recvfrom": ("ECONNRESET", "ENOMEM", "EIO"),
    "sendto": ("EPIPE", "ECONNRESET", "ENOBUFS"),
    "epoll_create1": ("EMFILE", "ENOMEM"),
    "epoll_ctl": ("ENOMEM", "ENOSPC"),
    "socketpair": ("EMFILE", "ENOMEM"),
    "pipe2": ("EMFILE", "ENFILE"),
    "close": ("EIO",),
}
"""System call → errors with which it is refused."""
NUMBERS = (1, 2, 3)
"""Which calls of a name are refused, one in each attempt."""
PATIENCE_S = 60
LISTENING = re.compile(r"Listening at http://127\.0\.0\.1:(\d+)")


@dataclass(frozen=True)
class Point:
    """The `number`-th call of this name fails with an error."""

    call: str
    number: int
    error: str


def points() -> list[Point]:
    """Return all points."""
    return [Point(call, number, error) for call, errors in ERRORS.items() for number in NUMBERS for error in errors]


def attempt(artifact: Path, image: bytes, point: Point) -> tuple[str, list[str]]:
    """Run a server and disturb it; return what happened, and what is wrong."""
    with tempfile.TemporaryDirectory() as folder:
        log, errors = Path(folder) / "trace", Path(folder) / "stderr"
        inject = f"inject={point.call}:error={point.error}:when={point.number}"
        # Only the call's own thread is traced. -D: the server is the child of this process.
        tracer = ["strace", "-D", "-o", str(log), "-e", f"trace={point.call}", "-e", inject]
        command = [*tracer, sys.executable, "-m", "toolkit.cli", "serve", str(artifact), "--port", "0", "--threads", "1"]
        with errors.open("w") as stderr, subprocess.Popen(command, stderr=stderr, stdout=subprocess.DEVNULL) as process:
            failed, answered = _use(process, errors, image)
            process.send_signal(signal.SIGTERM)
            code = _code_of(process)
        lines = errors.read_text().splitlines()
        injected = log.exists() and "(INJECTED)" in log.read_text(errors="replace")
    wrong = []
    if any("Traceback" in line for line in lines):
        wrong.append("a traceback")
    if code == 1 and not (lines and lines[-1].startswith("Error: ")):
        wrong.append("exit code 1 without a reason")
    if code not in (0, 1):
        wrong.append(f"exit code {code}")
    if code == 0 and (not answered or failed > 1):
        wrong.append(f"{failed} requests failed, the last one {'was' if answered else 'was not'} answered")
    outcome = "not reached" if not injected else f"exit code {code}" if code else f"served, {failed} failed"
    return outcome, [f"{problem}: {' / '.join(lines[-6:])[-1200:]}" for problem in wrong]


def _use(process: "subprocess.Popen[bytes]", errors: Path, image: bytes) -> tuple[int, bool]:
    """Send requests until one is answered; return how many failed before, and whether one was answered."""
    failed = 0
    for _ in _until(process):
        if (match := LISTENING.search(errors.read_text())) is None:
            continue
        status = _request(int(match[1]), image)
        if status == 200:
            return failed, True
        failed += status != 503
    return failed, False


def _request(port: int, image: bytes) -> int:
    """Return the status of a request; 0 if the connection failed."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("POST", "/v1/caption", image, {"Content-Type": "image/jpeg"})
        return connection.getresponse().status
    return 0


def _until(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """Yield from time to time while the process runs."""
    end = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < end:
        yield
        time.sleep(0.1)


def _code_of(process: "subprocess.Popen[bytes]") -> int:
    try:
        return process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def main() -> None:
    """Try all points, print what happened, and end with exit code 1 if anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.serving")
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--calls", default=",".join(ERRORS))
    options = parser.parse_args()
    image = load_dataset("sample").images[0].path.read_bytes()
    outcomes: Counter[tuple[str, str]] = Counter()
    faults = []
    for point in points():
        if point.call in options.calls.split(","):
            outcome, wrong = attempt(options.artifact, image, point)
            outcomes[point.call, outcome] += 1
            faults += [f"{point}: {problem}" for problem in wrong]
    for (call, outcome), count in sorted(outcomes.items()):
        print(f"{call}: {count} {outcome}")
    print("\n".join(f"FAULT {fault}" for fault in faults))
    print(f"{outcomes.total()} points: {len(faults)} faults")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
