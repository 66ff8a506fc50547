"""Run `toolkit.distribute` in tests, and read what it wrote."""

import logging
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from runtimes.artifact.folder import open_artifact
from runtimes.pool.job import CaptionJob, Request
from toolkit.distribute.distribute import Order, caption_here, distribute
from toolkit.distribute.part import Part
from toolkit.distribute.sources.inputs import Inputs
from toolkit.distribute.tally import MaxErrors

REQUEST: dict[str, Any] = {
    "prompt": None,
    "num_beams": None,
    "min_length": None,
    "max_length": None,
    "batch_size": 1,
    "max_pixels": None,
    "reduce_large": False,
    "strip_prompt": False,
}


def order(artifact: Path, output: str | Path, *names: object, **options: Any) -> Order:
    """Return an order with small shards, in one process; `options` are fields of `Order`, `Inputs`, `Request` or `CaptionJob`."""
    inputs = {name: options.pop(name) for name in ("from_file", "column", "images", "hashed") if name in options}
    request = {name: options.pop(name) for name in list(options) if name in Request.__dataclass_fields__}
    job = CaptionJob(
        artifact=str(artifact),
        device="cpu",
        threads=1,
        readers=1,
        request=Request(**{**REQUEST, **request}),
        log_level=logging.WARNING,
        timeout_s=options.pop("timeout_s", 60.0),
    )
    usual = {
        "base": str(Path.cwd()),
        "endpoint": None,
        "shard_size": 5,
        "processes": 1,
        "part": Part(),
        "extend": False,
        "retry_errors": frozenset(),
        "max_errors": MaxErrors(),
        "list_only": False,
    }
    return Order(
        inputs=Inputs(names=tuple(map(str, names)), **inputs),
        output=str(output),
        job=job,
        artifact=open_artifact(artifact).manifest.digest,
        **{**usual, **options},
    )


def run(*arguments: Any, scheduler: Any = caption_here, show: Any = lambda line: None, **options: Any) -> dict[str, Any]:
    """Run an order and return the summary."""
    return distribute(order(*arguments, **options), scheduler, show)


def rows_in(folder: Path) -> list[dict[str, Any]]:
    """Return all rows of the shards of a local folder, in order."""
    return [row for shard in sorted(folder.glob("shards/*.parquet")) for row in pq.read_table(shard).to_pylist()]


def bytes_in(folder: Path) -> dict[str, bytes]:
    """Return name → bytes of the files that must not depend on how a run was done."""
    return {
        str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file() and file.parent.name != "shards"
    } | {file.name: file.read_bytes() for file in folder.glob("shards/*.parquet")}
