"""A data set on a local S3 server, captioned by two Ray nodes while processes are killed.

10,000 images, one in a hundred corrupt: a tenth as files, the others in WebDataset tar files and Parquet files. An actor, a node and the
driver are killed. Every input has one row, with the caption of `toolkit caption`; 16 parts without Ray have the bytes of that run.
"""

import io
import json
import os
import random
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from tests.images import encode
from tests.soak import CORRUPT, photo_image
from tests.toolkit.distribute.s3_server import BUCKET, KEYS, files, s3_server

TOOLKIT = [sys.executable, "-m", "toolkit.cli", "-q"]
PARTS = 16
CONTAINER = 500
"""Images per tar and Parquet file."""
OUT = f"{BUCKET}/out"
MAX_WAIT_S = 900.0


def contents(count: int) -> list[bytes]:
    """Return that many images, one of a hundred corrupt and one of two hundred equal to another one."""
    ways, chance = list(CORRUPT.values()), random.Random(0)
    good = [encode(photo_image(number), "PNG") for number in range(count)]
    for number in range(50, count, 100):
        good[number] = ways[number // 100 % len(ways)]
    for number in range(75, count, 200):
        good[number] = good[chance.randrange(number)]
    return good


def upload(images: list[bytes], there: Any) -> list[str]:
    """Write the images to the bucket; return the inputs that name them, in order."""
    names = []
    tenth = len(images) // 10
    for number, content in enumerate(images[:tenth]):
        _put(there, f"files/{number:05}.png", content)
    names.append("files")
    for start in range(tenth, len(images), CONTAINER):
        part, number = images[start : start + CONTAINER], start // CONTAINER
        buffer = io.BytesIO()
        if number % 2:
            pq.write_table(pa.table({"image": part}), buffer, row_group_size=100)
            names.append(f"{number:03}.parquet")
        else:
            with tarfile.open(fileobj=buffer, mode="w") as archive:
                for place, content in enumerate(part):
                    header = tarfile.TarInfo(f"{place:05}.png")
                    header.size = len(content)
                    archive.addfile(header, io.BytesIO(content))
            names.append(f"{number:03}.tar")
        _put(there, names[-1], buffer.getvalue())
    return [f"s3://{BUCKET}/{name}" for name in names]


def _put(there: Any, name: str, content: bytes) -> None:
    with there.open_output_stream(f"{BUCKET}/{name}") as stream:
        stream.write(content)


def expected_rows(artifact: Path, images: list[bytes], folder: Path) -> list[dict[str, Any]]:
    """Return the rows of `toolkit caption` for the same bytes."""
    (folder / "images").mkdir()
    for number, content in enumerate(images):
        (folder / "images" / f"{number:05}.png").write_bytes(content)
    output = folder / "captions.jsonl"
    subprocess.run(
        [*TOOLKIT, "caption", str(artifact), str(folder / "images"), "--json", "--threads", "1", "-o", str(output)],
        stderr=subprocess.DEVNULL,
    )
    return [json.loads(line) for line in output.read_bytes().splitlines()]


def shards(there: Any) -> dict[str, bytes]:
    """Return name → bytes of the shards in the bucket."""
    from pyarrow.fs import FileSelector

    infos = there.get_file_info(FileSelector(f"{OUT}/shards", allow_not_found=True))
    found = {}
    for info in infos:
        if info.base_name.endswith(".parquet"):
            with there.open_input_file(info.path) as stream:
                found[info.base_name] = stream.read()
    return found


class Killing:
    """A run on two Ray nodes in this machine, in which an actor, a node and the driver are killed."""

    def __init__(self, command: list[str], there: Any) -> None:
        self._command, self._there, self.killed = command, there, list[str]()

    def run(self, total: int) -> int:
        """Run to the end; return the exit code of the last driver."""
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        node = cluster.add_node(num_cpus=1)
        try:
            driver = self._driver(cluster.address)
            self._wait(driver, total // 8)
            actor = next(process for process in psutil.process_iter(["cmdline"]) if _is_actor(process))
            actor.kill()
            self.killed.append("actor")
            self._wait(driver, total // 4)
            cluster.remove_node(node, allow_graceful=False)
            self.killed.append("node")
            self._wait(driver, total // 2)
            driver.kill()
            driver.wait()
            self.killed.append("driver")
            cluster.add_node(num_cpus=1)
            return self._driver(cluster.address).wait(MAX_WAIT_S)
        finally:
            cluster.shutdown()

    def _driver(self, address: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen([*self._command, "--address", address], stdout=subprocess.DEVNULL)

    def _wait(self, driver: "subprocess.Popen[bytes]", count: int) -> None:
        until = time.monotonic() + MAX_WAIT_S
        while len(shards(self._there)) < count:
            assert driver.poll() is None, f"the driver ended with exit code {driver.returncode}"
            assert time.monotonic() < until
            time.sleep(0.5)


def _is_actor(process: psutil.Process) -> bool:
    return (process.info["cmdline"] or [""])[0].startswith("ray::ShardActor")


@dataclass(frozen=True, kw_only=True)
class Soaked:
    """What was seen."""

    inputs: int
    shards: int
    seconds: float
    killed: list[str]
    exit_code: int
    rows: int
    once: bool
    """Whether each input has one row."""
    equal: int
    """Rows that equal those of `toolkit caption`."""
    errors: int
    duplicates: int
    parts: int
    parts_seconds: float
    parts_equal: bool
    """Whether the parts without Ray have the bytes of the run on Ray."""

    def problems(self) -> list[str]:
        """Return what is not as promised."""
        wrong = {
            "the exit code is not 1": self.exit_code != 1,
            "not all were killed": self.killed != ["actor", "node", "driver"],
            "an input has no row, or several": not self.once,
            f"{self.inputs - self.equal} rows differ from those of toolkit caption": self.equal != self.inputs,
            "the parts have other bytes": not self.parts_equal,
        }
        return [problem for problem, is_wrong in wrong.items() if is_wrong]


def soak(artifact: Path, count: int, shard_size: int) -> Soaked:
    """Run the campaign and return what was seen."""
    with tempfile.TemporaryDirectory() as temporary, s3_server() as endpoint:
        folder, there = Path(temporary), files(endpoint)
        os.environ |= KEYS | {"AWS_ENDPOINT_URL_S3": endpoint, "OMP_NUM_THREADS": "1"}
        images = contents(count)
        inputs = upload(images, there)
        expected = expected_rows(artifact, images, folder)
        common = [*TOOLKIT, "distribute", str(artifact), *inputs, "--shard-size", str(shard_size)]
        total, began = -(-count // shard_size), time.monotonic()
        killing = Killing([*common, "--output", f"s3://{OUT}"], there)
        code = killing.run(total)
        seconds, ray_shards = time.monotonic() - began, shards(there)
        rows = [row for name in sorted(ray_shards) for row in pq.read_table(io.BytesIO(ray_shards[name])).to_pylist()]
        places, began = Counter(row["index"] for row in rows), time.monotonic()
        for number in range(1, PARTS + 1):
            subprocess.run(
                [*common, "--output", str(folder / "parts"), "--part", f"{number}/{PARTS}"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        parts_seconds = time.monotonic() - began
        return Soaked(
            inputs=count,
            shards=total,
            seconds=seconds,
            killed=killing.killed,
            exit_code=code,
            rows=len(rows),
            once=len(rows) == count and set(places.values()) == {1},
            equal=sum(_same(row, other) for row, other in zip(rows, expected, strict=False)),
            errors=sum(row["error"] is not None for row in rows),
            duplicates=sum(row["duplicate_of"] is not None for row in rows),
            parts=PARTS,
            parts_seconds=parts_seconds,
            parts_equal={file.name: file.read_bytes() for file in (folder / "parts" / "shards").glob("*.parquet")} == ray_shards,
        )


def _same(row: dict[str, Any], other: dict[str, Any]) -> bool:
    """Compare with a row of `toolkit caption`. Messages of errors differ in the name of the image."""
    if "error" in other:
        return bool(row["code"] == other["code"])
    return all(row[name] == other[name] for name in ("caption", "token_ids", "score", "finish_reason"))
