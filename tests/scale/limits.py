"""Time and memory of `toolkit distribute` before the first image: a million paths or objects that are listed, a million finished rows."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.toolkit.distribute.listing_server import FOLDER, listing_server
from tests.toolkit.distribute.runs import order
from tests.toolkit.distribute.s3_server import KEYS
from toolkit.distribute.distribute import config_of, settings_of
from toolkit.distribute.entry import Entry
from toolkit.distribute.manifest import write_manifest
from toolkit.distribute.run_folder import SCHEMA, Listing, Run, RunFolder
from toolkit.distribute.shard import SUFFIX, encode_shard, shard_name, stats_of, write_stats
from toolkit.distribute.stores.stores import Stores

SHARD_SIZE = 1000
PER_FOLDER = 10_000
MAX_MB = 200.0
"""Of every command."""
MAX_RESUME_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one command took."""

    what: str
    seconds: float
    peak_mb: float
    """Largest resident memory."""


def listed_paths(artifact: Path, count: int) -> Iterator[Measured]:
    """List that many files of a local folder, with their names only, and with hashes of contents that all differ."""
    with tempfile.TemporaryDirectory() as temporary:
        images, output = Path(temporary) / "images", Path(temporary) / "out"
        for number in range(count):
            if number % PER_FOLDER == 0:
                (folder := images / f"{number // PER_FOLDER:05}").mkdir(parents=True)
            (folder / f"{number:07}.jpg").write_bytes(number.to_bytes(8))
        for option in ("--no-hash", "--hash"):
            yield _measured(f"{count:,} files, `{option}`", artifact, images, output, option, "--list-only")


def listed_objects(artifact: Path, count: int) -> Iterator[Measured]:
    """List that many objects of an S3 server in folders, and a tenth of them in one folder, whose names `pyarrow` returns at once."""
    for number, per_folder in ((count, PER_FOLDER), (count // 10, None)):
        with tempfile.TemporaryDirectory() as temporary, listing_server(number, per_folder) as endpoint:
            options = ("--no-hash", "--list-only", "--s3-endpoint", endpoint)
            where = "in one folder" if per_folder is None else f"in folders of {per_folder:,}"
            yield _measured(f"{number:,} objects {where}", artifact, f"s3://{FOLDER}", Path(temporary) / "out", *options)


def resumed_rows(artifact: Path, count: int) -> Iterator[Measured]:
    """Start a run again in which that many rows are finished."""
    with tempfile.TemporaryDirectory() as temporary:
        output = Path(temporary) / "out"
        _finish(artifact, output, count)
        yield _measured(f"{count:,} finished rows", artifact, "images", output, "--no-hash")


def _measured(what: str, artifact: Path, inputs: object, output: Path, *options: str) -> Measured:
    arguments = (str(artifact), str(inputs), "--output", str(output), "--part", "1/1", *options)
    began, peak = time.monotonic(), 0
    process = subprocess.Popen(
        [sys.executable, "-m", "toolkit.cli", "-q", "distribute", *arguments], stdout=subprocess.DEVNULL, env=os.environ | KEYS
    )
    while process.poll() is None:  # the peak that the system reports at the end includes that of this process before the fork
        peak = max(peak, _peak_kb(process.pid))
        time.sleep(0.01)
    assert process.returncode == 0
    return Measured(what=what, seconds=time.monotonic() - began, peak_mb=peak / 1024)


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
