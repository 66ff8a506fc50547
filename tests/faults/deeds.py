"""What is disturbed: commands that write, each with the state it finds, and what may be there afterwards."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from runtimes.artifact.folder import open_artifact
from runtimes.artifact.verified_files import open_verified
from toolkit.batch.journal import partial_of
from toolkit.records.record import read_records


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What all deeds share: made once, never written to by a deed that behaves."""

    checkpoint: Path
    artifact: Path
    other: Path
    """Of another checkpoint: what is overwritten."""
    images: Path
    packages: Path
    """artifact.tar.gz, other.tar.gz, and unpacked, which is the first of them."""
    shards: Path
    """Folder of a finished run of `toolkit distribute`."""


@dataclass(frozen=True, kw_only=True)
class Deed:
    """One command."""

    prepare: Callable[[Stage, Path], object]
    """Put into the empty folder of the output what was there before."""
    arguments: Callable[[Stage, Path], list[str]]
    look: Callable[[Stage, Path], str]
    """Say what is at the output: "old", "new", "nothing", "part" (allowed where a deed keeps what it has), else what is wrong."""
    allowed: frozenset[str]
    left: frozenset[str]
    """Names in the folder after the deed was done again, besides hidden references of exports."""


def artifact_at(path: Path, old: Path, new: Path) -> str:
    """Which artifact is there, every byte of it checked."""
    if not path.exists():
        return "nothing"
    try:
        opened = open_artifact(path)
        with open_verified(opened) as payload:
            for entry in opened.manifest.files.values():
                payload.read(entry.role)
    except Exception as error:  # whatever it is, it is what is wrong
        return repr(error)
    files = opened.manifest.files
    return next((name for name, candidate in (("old", old), ("new", new)) if open_artifact(candidate).manifest.files == files), "a mixture")


def _look_at_bytes(path: Path, old: bytes | None, new: bytes) -> str:
    if not path.exists():
        return "nothing"
    return {old: "old", new: "new"}.get(path.read_bytes(), "other bytes")


def _look_at_records(stage: Stage, place: Path) -> str:
    file = place / "records.jsonl"
    if file.read_bytes() == b"old\n":
        return "old"
    return "new" if len(read_records(file)) == 2 else "part"


def _look_at_captions(stage: Stage, place: Path) -> str:
    file = place / "captions.jsonl"
    names = sorted(str(image) for image in stage.images.iterdir())
    if file.exists():
        rows = [json.loads(line) for line in file.read_bytes().splitlines()]
        return "new" if [row["image"] for row in rows] == names else "other rows"
    if not partial_of(file).exists():
        return "nothing"
    whole = partial_of(file).read_bytes().split(b"\n")[:-1]
    return "part" if {json.loads(line)["image"] for line in whole[1:]} <= set(names) else "other rows"


DISTRIBUTE = ("--part", "1/1", "--actors", "1", "--shard-size", "3")


def _look_at_shards(stage: Stage, place: Path) -> str:
    """Compare with the finished run: files under their final names are whole, and a stats file has its shard."""
    files = {file.relative_to(place / "out"): file for file in (place / "out").rglob("*") if file.is_file()}
    final = {name: file for name, file in files.items() if not name.name.startswith(".")}
    for name, file in final.items():
        if name.parent.name == "shards" and name.suffix == ".json":
            stats = json.loads(file.read_bytes())
            if stats["sha256"] != hashlib.sha256(final[name.with_suffix(".parquet")].read_bytes()).hexdigest():
                return f"{name} is of other rows"
        elif file.read_bytes() != (stage.shards / name).read_bytes():
            return f"{name} has other bytes"
    if not final:
        return "nothing"
    return "new" if files.keys() == {file.relative_to(stage.shards) for file in stage.shards.rglob("*") if file.is_file()} else "part"


def _an_export_of_another_checkpoint(stage: Stage, place: Path) -> None:
    shutil.copytree(stage.other, place / stage.artifact.name)


DEEDS = {
    "export": Deed(
        prepare=_an_export_of_another_checkpoint,
        arguments=lambda stage, place: (
            [
                "export",
                "--no-draft",
                str(stage.checkpoint),
                "--recipe",
                "onnx-int8",
                "-o",
                str(place),
                "--on-gate-failure",
                "write",
                "--overwrite",
            ]
        ),
        look=lambda stage, place: artifact_at(place / stage.artifact.name, stage.other, stage.artifact),
        allowed=frozenset({"old", "new"}),
        left=frozenset({"tiny-onnx-int8"}),
    ),
    "package": Deed(
        prepare=lambda stage, place: shutil.copy(stage.packages / "other.tar.gz", place / "package.tar.gz"),
        arguments=lambda stage, place: ["package", str(stage.artifact), "-o", str(place / "package.tar.gz"), "--overwrite"],
        look=lambda stage, place: _look_at_bytes(
            place / "package.tar.gz", (stage.packages / "other.tar.gz").read_bytes(), (stage.packages / "artifact.tar.gz").read_bytes()
        ),
        allowed=frozenset({"old", "new"}),
        left=frozenset({"package.tar.gz"}),
    ),
    "unpack": Deed(
        prepare=lambda stage, place: None,
        arguments=lambda stage, place: ["unpack", str(stage.packages / "artifact.tar.gz"), "-o", str(place / "unpacked")],
        look=lambda stage, place: artifact_at(place / "unpacked", stage.other, stage.packages / "unpacked"),
        allowed=frozenset({"nothing", "new"}),
        left=frozenset({"unpacked"}),
    ),
    "bench": Deed(
        prepare=lambda stage, place: (place / "records.jsonl").write_bytes(b"old\n"),
        arguments=lambda stage, place: [
            *("bench", str(stage.artifact), "--images", str(stage.images), "--limit", "2", "--repeat", "2", "--warmup", "1"),
            *("--threads", "1", "-o", str(place / "records.jsonl"), "--overwrite"),
        ],
        look=_look_at_records,
        allowed=frozenset({"old", "part", "new"}),
        left=frozenset({"records.jsonl"}),
    ),
    "caption": Deed(
        prepare=lambda stage, place: None,
        arguments=lambda stage, place: [
            *("caption", str(stage.artifact), str(stage.images), "--json", "-o", str(place / "captions.jsonl"), "--resume"),
        ],
        look=_look_at_captions,
        allowed=frozenset({"nothing", "part", "new"}),
        left=frozenset({"captions.jsonl", "captions.jsonl.meta"}),
    ),
    "distribute": Deed(
        prepare=lambda stage, place: None,
        arguments=lambda stage, place: ["distribute", str(stage.artifact), str(stage.images), "-o", str(place / "out"), *DISTRIBUTE],
        look=_look_at_shards,
        allowed=frozenset({"nothing", "part", "new"}),
        left=frozenset({"out"}),
    ),
}
"""Command → how it is tried."""
