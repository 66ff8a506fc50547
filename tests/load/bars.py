"""The two bars on the shapes of BLIP-base: images/s and latency of the server beside those of the library.

A client shares the cores with the server. So the library runs while the same client sends the same bytes to a server without a model, one
request for each image. Library and server take turns, since the speed of a shared machine changes within minutes.
"""

import asyncio
import io
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from PIL import Image

import runtimes
from tests.load.client import Client
from tests.load.servers import null_server, toolkit_server

CLIENTS = 4
ROUNDS = 3
IMAGES = 12
"""Of a turn of throughput."""
PAIRS = 12
"""Of latencies."""
JPEG_BYTES = 1_000_000
MIN_RATIO = 0.95
MAX_ADDED_S = 0.005


def large_jpeg(photo: bytes) -> bytes:
    """Return a JPEG of about 1 MB: a photograph, enlarged until its file has that size."""
    image = Image.open(io.BytesIO(photo)).convert("RGB")
    for side in range(1_600, 6_000, 100):
        file = io.BytesIO()
        image.resize((side, round(side * image.height / image.width)), Image.Resampling.BICUBIC).save(file, "JPEG", quality=92)
        if file.tell() >= JPEG_BYTES:
            break
    return file.getvalue()


def measure(artifact: Path, images: Sequence[bytes]) -> dict[str, object]:
    """Return images/s of both in turns, latencies of both in turns, and the two figures that the bars are about."""
    jpeg = large_jpeg(images[0])
    library: list[float] = []
    server: list[float] = []
    with runtimes.load(artifact) as captioner, toolkit_server(artifact, "--max-wait", "600", "--timeout", "600") as (port, _):
        captioner.caption(jpeg)
        with null_server() as (null_port, _):
            for _ in range(ROUNDS):
                library.append(_library_rate(captioner, images, null_port))
                server.append(asyncio.run(_server_rate(port, images)))
        alone, served = asyncio.run(_latencies(captioner, port, jpeg))
    ratios = [s / a for s, a in zip(server, library, strict=True)]
    added = statistics.median(served) - statistics.median(alone)
    return {
        "artifact": artifact.name,
        "jpeg_bytes": len(jpeg),
        "library_images_per_s": library,
        "server_images_per_s": server,
        "ratio": statistics.median(ratios),
        "library_s": alone,
        "server_s": served,
        "library_p50_s": statistics.median(alone),
        "server_p50_s": statistics.median(served),
        "added_s": added,
        "bars_met": statistics.median(ratios) >= MIN_RATIO and added <= MAX_ADDED_S,
    }


def _library_rate(captioner: "runtimes.Captioner", images: Sequence[bytes], null_port: int) -> float:
    """Return images/s of the library, which reads ahead, while a client process sends each image to the server without a model."""
    command = [sys.executable, "-m", "tests.load.sender", str(null_port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as sender:
        assert sender.stdin is not None
        assert sender.stdout is not None
        sender.stdout.readline()  # it is connected
        begun = time.perf_counter()
        list(captioner.stream(_told(images, sender.stdin), workers=1))
        seconds = time.perf_counter() - begun
        sender.stdin.close()
    return IMAGES / seconds


def _told(images: Sequence[bytes], sender: IO[bytes]) -> Iterator[bytes]:
    """Yield the images of a turn, and make the sender send each one."""
    for i in range(IMAGES):
        image = images[i % len(images)]
        sender.write(len(image).to_bytes(4, "big") + image)
        sender.flush()
        yield image


async def _server_rate(port: int, images: Sequence[bytes]) -> float:
    """Return images/s of the server with a few clients, so that it always has the next image."""
    pending = iter([images[i % len(images)] for i in range(IMAGES)])

    async def client() -> None:
        connection = Client(port)
        for image in pending:
            assert (await connection.post(image)).status == 200
        await connection.close()

    begun = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return IMAGES / (time.perf_counter() - begun)


async def _latencies(captioner: "runtimes.Captioner", port: int, jpeg: bytes) -> tuple[list[float], list[float]]:
    """Return the seconds of the library and of the server for one image, in turns."""
    client = Client(port)
    alone, served = [], []
    for i in range(2 * PAIRS):
        begun = time.perf_counter()
        if i % 2:
            assert (await client.post(jpeg)).status == 200
            served.append(time.perf_counter() - begun)
        else:
            captioner.caption(jpeg)
            alone.append(time.perf_counter() - begun)
    await client.close()
    return alone, served
