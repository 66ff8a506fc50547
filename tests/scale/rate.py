"""Images per second of `toolkit distribute` on Ray, of `--part 1/1` and of `toolkit caption`, on the same images and cores, in turns.

Each command captions two numbers of images. The difference of the times is that of the further images, without the start of the command.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PROCESSES = 2
SMALL, LARGE = 400, 1200
SHARD_SIZE = 200
TURNS = 3
MIN_RATIO = 0.9
TOOLKIT = (sys.executable, "-m", "toolkit.cli", "-q")
DISTRIBUTE = ("--shard-size", str(SHARD_SIZE), "--actors", str(PROCESSES), "--no-hash")
COMMANDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "`caption --processes 2`": ("caption", ("--processes", str(PROCESSES), "--threads", "1", "--json", "-o")),
    "`distribute --part 1/1`": ("distribute", (*DISTRIBUTE, "--part", "1/1", "-o")),
    "`distribute` with Ray": ("distribute", (*DISTRIBUTE, "-o")),
}
"""Name → subcommand, and its options up to the output."""


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Turns of one command."""

    command: str
    images: tuple[int, int]
    """The small and the large number."""
    seconds: list[tuple[float, float]]
    """Of the small and of the large number, for each turn."""
    images_per_s: float
    """After the start; median of the turns."""


def measure(artifact: Path, photographs: Sequence[Path]) -> list[Rate]:
    """Return the rate of each command. Photographs are repeated under other names."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for count in (SMALL, LARGE):
            (folder / str(count)).mkdir()
            for number in range(count):
                _different(photographs[number % len(photographs)], folder / str(count) / f"{number:05}.jpg", number)
        for _ in range(TURNS):
            for name, (command, options) in COMMANDS.items():
                small, large = (_seconds([command, str(artifact), str(folder / str(count)), *options], folder) for count in (SMALL, LARGE))
                seconds[name].append((small, large))
    return [
        Rate(
            command=name,
            images=(SMALL, LARGE),
            seconds=turns,
            images_per_s=statistics.median((LARGE - SMALL) / (large - small) for small, large in turns),
        )
        for name, turns in seconds.items()
    ]


def problems(rates: Sequence[Rate]) -> list[str]:
    """Return the commands that are slower than the bar."""
    reference, *others = rates
    return [
        f"{rate.command} has {rate.images_per_s / reference.images_per_s:.2f} of the rate of {reference.command}"
        for rate in others
        if rate.images_per_s < MIN_RATIO * reference.images_per_s
    ]


def _different(photograph: Path, copy: Path, number: int) -> None:
    """Copy a photograph with bytes of its own after its end, so that no image is captioned once for several."""
    shutil.copy(photograph, copy)
    with copy.open("ab") as file:
        file.write(number.to_bytes(4))


def _seconds(arguments: Sequence[str], folder: Path) -> float:
    output = folder / "output"
    began = time.monotonic()
    subprocess.run([*TOOLKIT, *arguments, str(output)], check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    seconds = time.monotonic() - began
    shutil.rmtree(output) if output.is_dir() else output.unlink()
    return seconds
