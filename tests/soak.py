"""Caption thousands of images with the tiny artifact; check that memory does not grow and that kills lose nothing: `make soak`.

The first run is not killed; memory, descriptors and threads of its two processes are recorded. The second run has two captioning processes.
It is killed at random moments and resumed, and its captioning processes are killed too. One image in a hundred is corrupt, in 25 ways.
"""

import argparse
import io
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from PIL import Image

from tests.images import FILES, OTHER, RGB, encode, photo, png, tiff

COMMAND = [sys.executable, "-m", "toolkit.cli", "-q", "caption"]
SETTLED = 1000
"""Images after which nothing may grow."""
WINDOW = 500
"""Images over which a figure's median is taken, after those and at the end."""
DRIFT = 0.02
ONE_HEAP = {"MALLOC_ARENA_MAX": "1"}
"""One heap of glibc for all threads. With several, a thread takes whichever is free, and each grows once, at any time: 1 to 3 % in all."""


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("image.png", FILES["png"])
    return file.getvalue()


def _flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]


GIF, BMP, WEBP, PPM = (encode(RGB, form) for form in ("GIF", "BMP", "WEBP", "PPM"))
JPEG, PNG, TIFF, AVIF = (FILES[name] for name in ("jpeg", "png", "tiff", "avif"))
CORRUPT: dict[str, bytes] = {
    "empty": b"",
    "one byte": b"\xff",
    "zeros": bytes(10_000),
    "noise": random.Random(0).randbytes(10_000),
    "text": b"no image\n" * 50,
    "web page": b"<!doctype html><html><body>404</body></html>",
    "vector": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "document": b"%PDF-1.7\n%%EOF\n",
    "zip": _zip(),
    "JPEG cut": JPEG[: len(JPEG) // 2],
    "JPEG without a start": JPEG[20:],
    "JPEG start alone": JPEG[:4],
    "PNG cut": PNG[: len(PNG) // 2],
    "PNG of a wrong sum": _flipped(PNG, PNG.index(b"IDAT") + 10),
    "PNG header cut": PNG[:20],
    "PNG without pixels": PNG[: PNG.index(b"IDAT") - 4] + PNG[-12:],
    "PNG that claims 10 gigapixels": png(100_000, 100_000),
    "PNG of no width": png(0, 10),
    "GIF cut": GIF[: len(GIF) // 2],
    "GIF start alone": GIF[:6],
    "BMP cut": BMP[: len(BMP) // 2],
    "WebP cut": WEBP[: len(WEBP) // 2],
    "TIFF that points outside": tiff(30, 30, b"x" * 90)[:60],
    "PPM cut": PPM[: len(PPM) // 2],
    "AVIF cut": AVIF[: len(AVIF) // 2],
}
"""25 ways to be no image."""
GOOD = [JPEG, PNG, GIF, BMP, WEBP, PPM, TIFF, AVIF, *(encode(OTHER, form) for form in ("JPEG", "PNG"))]


@dataclass(frozen=True, kw_only=True)
class Soaked:
    """What was seen."""

    images: int
    errors: int
    seconds: float
    first: dict[str, float]
    last: dict[str, float]
    """Figure → its median after the first images, and at the end."""
    kills: int
    worker_kills: int
    same_bytes: bool

    @property
    def drift(self) -> dict[str, float]:
        """Figure → how much of itself it grew by."""
        return {name: self.last[name] / self.first[name] - 1 for name in self.first}


def write_images(folder: Path, count: int) -> None:
    """Make that many files, one of a hundred corrupt; each way comes once in the first thousand, as what is allocated once is no growth."""
    ways, varied = list(CORRUPT.values()), [encode(photo_image(seed), "PNG") for seed in range(40)] + GOOD
    places = list(range(30, SETTLED, SETTLED // len(ways)))[: len(ways)]
    more = max(0, count // 100 - len(ways))
    places += [SETTLED + turn * (count - SETTLED) // more for turn in range(more)]
    for number in range(count):
        content = ways[places.index(number) % len(ways)] if number in places else varied[number % len(varied)]
        (folder / f"{number:05}.png").write_bytes(content)


def photo_image(seed: int) -> Image.Image:
    """A small image of its own."""
    return Image.fromarray(photo(seed=seed))


def soak(artifact: Path, folder: Path, count: int, kills: int, seed: int) -> Soaked:
    """Caption `count` images twice, once watched and once killed that many times."""
    images = folder / "images"
    images.mkdir()
    write_images(images, count)
    whole, broken = folder / "whole.jsonl", folder / "broken.jsonl"
    began = time.monotonic()
    samples = list(_watched(_start(artifact, images, whole, "--processes", "1", environment=ONE_HEAP), whole))
    seconds = time.monotonic() - began
    chance, killed, workers = random.Random(seed), 0, 0
    for moment in sorted(chance.sample(range(2, count), kills)):
        done = max(0, _done(broken))
        process = _start(artifact, images, broken, "--resume", "--processes", "2")
        if moment > done + 2 and chance.random() < 0.5:
            workers += _kill_when(process, broken, chance.randrange(done + 1, moment), _worker_of)
        killed += _kill_when(process, broken, moment, lambda process: process)
    _start(artifact, images, broken, "--resume").wait()
    rows = [json.loads(line) for line in whole.read_bytes().splitlines()]
    assert [Path(row["image"]).name for row in rows] == sorted(file.name for file in images.iterdir()), "one row for each image"
    return Soaked(
        images=count,
        errors=sum("error" in row for row in rows),
        seconds=seconds,
        first=_medians(samples, SETTLED, SETTLED + WINDOW),
        last=_medians(samples, count - WINDOW, count),
        kills=killed,
        worker_kills=workers,
        same_bytes=whole.read_bytes() == broken.read_bytes(),
    )


def _start(artifact: Path, images: Path, output: Path, *more: str, environment: Mapping[str, str] = {}) -> subprocess.Popen[bytes]:
    command = [*COMMAND, str(artifact), str(images), "--json", "--threads", "1", "-o", str(output), *more]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ | environment)


def _done(output: Path) -> int:
    partial = output.with_name(output.name + ".partial")
    try:
        return partial.read_bytes().count(b"\n") - 1
    except FileNotFoundError:
        return -1


def _worker_of(process: subprocess.Popen[bytes]) -> psutil.Process | None:
    return next(iter(psutil.Process(process.pid).children()), None)


def _kill_when(process: subprocess.Popen[bytes], output: Path, done: int, whom: Callable[[subprocess.Popen[bytes]], Any]) -> bool:
    """Kill a process when `done` images are done; return whether the process existed."""
    while process.poll() is None:
        if _done(output) >= done:
            if (victim := whom(process)) is None:
                return False
            victim.kill()
            victim.wait()
            return True
        time.sleep(0.001)
    return False


def _watched(process: subprocess.Popen[bytes], output: Path) -> Iterator[dict[str, float]]:
    """Yield the figures of both processes while the run continues."""
    while process.poll() is None:
        try:
            both = {"supervisor": psutil.Process(process.pid), "worker": _worker_of(process)}
            sample = {"done": float(_done(output))}
            for name, watched in both.items():
                with watched.oneshot():
                    sample |= {
                        f"{name} MB": watched.memory_info().rss / 1e6,
                        f"{name} descriptors": float(watched.num_fds()),
                        f"{name} threads": float(watched.num_threads()),
                    }
            yield sample
        except (psutil.Error, AttributeError):  # not yet, or no longer there
            pass
        time.sleep(0.02)


def _medians(samples: list[dict[str, float]], low: int, high: int) -> dict[str, float]:
    window = [sample for sample in samples if low <= sample["done"] <= high]
    return {name: statistics.median(sample[name] for sample in window) for name in window[0] if name != "done"}


def main() -> None:
    """Run the soak test and print the results; exit code 1 if a check failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        soaked = soak(options.artifact, Path(folder), options.images, options.kills, options.seed)
    print(f"{soaked.images} images in {soaked.seconds:.0f} s, {soaked.errors} of them errors")
    for name, drift in soaked.drift.items():
        print(f"{name:<24} {soaked.first[name]:>8.2f} {soaked.last[name]:>8.2f} {drift:>+8.2%}")
    bytes_are = "the same bytes" if soaked.same_bytes else "OTHER BYTES"
    print(f"killed {soaked.kills} times, its captioning process {soaked.worker_kills} times: {bytes_are}")
    sys.exit(not soaked.same_bytes or max(soaked.drift.values()) > DRIFT)


if __name__ == "__main__":
    main()
