"""The processes that are measured: `toolkit serve`, a plain FastAPI server with transformers, and a server without a model."""

import asyncio
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.load.client import get

START_S = 180


@contextmanager
def toolkit_server(artifact: Path, *options: str) -> Iterator[tuple[int, psutil.Process]]:
    """Run `toolkit serve` and yield its port and process when it is ready."""
    command = [sys.executable, "-m", "toolkit.cli", "serve", str(artifact), "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            port = int(re.findall(r":(\d+)$", process.stderr.readline().strip())[0])
            _wait(port, "/readyz")
            yield port, psutil.Process(process.pid)
        finally:
            process.terminate()
    assert process.returncode == 0, process.returncode


@contextmanager
def plain_server(python: Sequence[str], checkpoint: Path) -> Iterator[tuple[int, psutil.Process]]:
    """Run tests/load/plain_server.py with another interpreter."""
    yield from _module_server([*python, str(Path(__file__).with_name("plain_server.py")), str(checkpoint)])


@contextmanager
def null_server() -> Iterator[tuple[int, psutil.Process]]:
    """Run tests/load/null_server.py."""
    yield from _module_server([sys.executable, "-m", "tests.load.null_server"])


def _module_server(command: list[str]) -> Iterator[tuple[int, psutil.Process]]:
    port = _free_port()
    process = subprocess.Popen([*command, str(port)])
    try:
        _wait(port, "/healthz")
        yield port, psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _wait(port: int, path: str) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        try:
            if asyncio.run(get(port, path)).status == 200:
                return
        except (ConnectionError, IndexError):
            pass
        time.sleep(0.1)
    raise TimeoutError(f"no server at port {port}")


def resident_bytes(process: psutil.Process) -> dict[int, int]:
    """Return the resident memory of a process and its children, by process id."""
    sizes = {}
    for each in (process, *process.children(recursive=True)):
        try:
            sizes[each.pid] = each.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return sizes
