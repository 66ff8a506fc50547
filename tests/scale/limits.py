"""Time and memory of `toolkit distribute` before the first image: a million paths that are listed, a million rows that are finished."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.toolkit.distribute.runs import order
from toolkit.distribute.distribute import config_of, settings_of
from toolkit.distribute.entry import Entry
from toolkit.distribute.manifest import write_manifest
from toolkit.distribute.run_folder import SCHEMA, Listing, Run, RunFolder
from toolkit.distribute.shard import SUFFIX, encode_shard, shard_name, stats_of, write_stats
from toolkit.distribute.stores import Stores

SHARD_SIZE = 1000
PER_FOLDER = 10_000
MAX_S, MAX_MB = 10.0, 200.0


def listed_paths(artifact: Path, count: int, say: Callable[[str], None]) -> bool:
    """List that many empty files; return whether it takes less than 200 MB."""
    with tempfile.TemporaryDirectory() as temporary:
        images, output = Path(temporary) / "images", Path(temporary) / "out"
        for number in range(count):
            if number % PER_FOLDER == 0:
                (folder := images / f"{number // PER_FOLDER:05}").mkdir(parents=True)
            os.close(os.open(folder / f"{number:07}.jpg", os.O_CREAT))
        for option in ("--no-hash", "--hash"):
            seconds, megabytes = _measured(artifact, images, output, option, "--list-only")
            say(f"{count} paths listed with {option} in {seconds:.1f} s and {megabytes:.0f} MB")
            if megabytes >= MAX_MB:
                return False
        return True


def resumed_rows(artifact: Path, count: int, say: Callable[[str], None]) -> bool:
    """Resume a run in which that many rows are finished; return whether it is ready in 10 s and 200 MB."""
    with tempfile.TemporaryDirectory() as temporary:
        output = Path(temporary) / "out"
        _finish(artifact, output, count)
        seconds, megabytes = _measured(artifact, "images", output, "--no-hash")
        say(f"{count} finished rows: ready in {seconds:.1f} s and {megabytes:.0f} MB")
        return seconds < MAX_S and megabytes < MAX_MB


def _measured(artifact: Path, inputs: object, output: Path, *options: str) -> tuple[float, float]:
    """Return time in s and largest resident memory in MB of one command."""
    command = [
        sys.executable,
        "-m",
        "toolkit.cli",
        "-q",
        "distribute",
        str(artifact),
        str(inputs),
        "--output",
        str(output),
        "--part",
        "1/1",
        *options,
    ]
    began, peak = time.monotonic(), 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:  # the peak that the system reports at the end includes that of this process before the fork
        peak = max(peak, _peak_kb(process.pid))
        time.sleep(0.01)
    assert process.returncode == 0
    return time.monotonic() - began, peak / 1024


def _peak_kb(process: int) -> int:
    """Return the largest resident memory of a process so far; 0 if it has just ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def _finish(artifact: Path, output: Path, count: int) -> None:
    """Write the folder of a finished run with made-up captions."""
    stores = Stores()
    store, folder = stores.of(str(output)), RunFolder(path=str(output), stores=stores)
    output.mkdir()
    wanted = order(artifact, output, "images", hashed=False, shard_size=SHARD_SIZE)

    def entries() -> Iterator[Entry]:
        for number in range(count):
            name = f"images/{number // PER_FOLDER:05}/{number:07}.jpg"
            yield Entry(image=name, path=name.encode())

    manifest = write_manifest(entries(), SHARD_SIZE, f"{output}/manifest-0000.parquet", store, ())
    assert manifest is not None
    run = Run(
        schema=SCHEMA, settings=settings_of(wanted), shard_size=SHARD_SIZE, listings=(Listing(inputs=wanted.inputs, manifest=manifest),)
    )
    folder.write(run)
    config = config_of(wanted, run)
    for number in range(run.shards):
        rows = [
            {
                "index": index,
                "image": f"{index}",
                "caption": f"a caption of image {index}",
                "token_ids": [*range(12)],
                "score": -1.5,
                "error": None,
            }
            for index in range(number * SHARD_SIZE, number * SHARD_SIZE + run.rows_of(number))
        ]
        content = encode_shard(rows, config.origin(number))
        store.write(f"{config.shards}/{shard_name(number)}{SUFFIX}", content)
        write_stats(config.shards, stats_of(rows, config.origin(number), content), store)
