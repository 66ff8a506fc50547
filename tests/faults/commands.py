"""The commands that write, each with the state before it and the states of its output that are allowed after a fault."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from runtimes.artifact.folder import open_artifact
from runtimes.artifact.verified_files import open_verified
from toolkit.batch.journal import partial_of
from toolkit.records.record_file import read_records


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The inputs of all commands. No command may change them."""

    checkpoint: Path
    artifact: Path
    other: Path
    """Artifact of another checkpoint, which the commands overwrite."""
    images: Path
    packages: Path
    """artifact.tar.gz, other.tar.gz, and unpacked, which is the first of them."""
    shards: Path
    """Folder of a finished run of `toolkit distribute`."""
    matcher: Path
    """Artifact of a matcher."""
    results: Path
    """Results of commands that were not disturbed: records.jsonl, report.html, and embeddings.npz."""


@dataclass(frozen=True, kw_only=True)
class Writer:
    """A command that writes."""

    prepare: Callable[[Inputs, Path], object]
    """Write the state before the command to the empty folder of the output."""
    arguments: Callable[[Inputs, Path], list[str]]
    look: Callable[[Inputs, Path], str]
    """Return the state of the output: "old", "new", "nothing", "part" (some results are kept), or the problem."""
    allowed: frozenset[str]
    left: frozenset[str]
    """Names in the folder after the command was repeated, besides hidden references of exports."""


def artifact_at(path: Path, old: Path, new: Path) -> str:
    """Return which artifact is at a path, after a check of all its bytes."""
    if not path.exists():
        return "nothing"
    try:
        opened = open_artifact(path)
        with open_verified(opened) as payload:
            for entry in opened.manifest.files.values():
                payload.read(entry.role)
    except Exception as error:  # any error is the problem to return
        return repr(error)
    files = opened.manifest.files
    return next((name for name, candidate in (("old", old), ("new", new)) if open_artifact(candidate).manifest.files == files), "a mixture")


def _look_at_bytes(path: Path, old: bytes | None, new: bytes) -> str:
    if not path.exists():
        return "nothing"
    return {old: "old", new: "new"}.get(path.read_bytes(), "other bytes")


def _look_at_records(inputs: Inputs, target: Path) -> str:
    file = target / "records.jsonl"
    if file.read_bytes() == b"old\n":
        return "old"
    return "new" if len(read_records(file)) == 2 else "part"


def _look_at_captions(inputs: Inputs, target: Path) -> str:
    file = target / "captions.jsonl"
    names = sorted(str(image) for image in inputs.images.iterdir())
    if file.exists():
        rows = [json.loads(line) for line in file.read_bytes().splitlines()]
        return "new" if [row["image"] for row in rows] == names else "other rows"
    if not partial_of(file).exists():
        return "nothing"
    whole = partial_of(file).read_bytes().split(b"\n")[:-1]
    return "part" if {json.loads(line)["image"] for line in whole[1:]} <= set(names) else "other rows"


DISTRIBUTE = ("--part", "1/1", "--actors", "1", "--shard-size", "3")
BENCH = ("--limit", "2", "--repeat", "2", "--warmup", "1", "--threads", "1")


def _look_at_shards(inputs: Inputs, target: Path) -> str:
    """Compare with the finished run: files under their final names are whole, and a stats file has its shard."""
    files = {file.relative_to(target / "out"): file for file in (target / "out").rglob("*") if file.is_file()}
    final = {name: file for name, file in files.items() if not name.name.startswith(".")}
    for name, file in final.items():
        if name.parent.name == "shards" and name.suffix == ".json":
            stats = json.loads(file.read_bytes())
            if stats["sha256"] != hashlib.sha256(final[name.with_suffix(".parquet")].read_bytes()).hexdigest():
                return f"{name} is of other rows"
        elif file.read_bytes() != (inputs.shards / name).read_bytes():
            return f"{name} has other bytes"
    if not final:
        return "nothing"
    return "new" if files.keys() == {file.relative_to(inputs.shards) for file in inputs.shards.rglob("*") if file.is_file()} else "part"


def _result(name: str, arguments: Callable[[Inputs], list[str]]) -> Writer:
    """Return a command that replaces a file by the file of this name in `Inputs.results`."""
    return Writer(
        prepare=lambda inputs, target: (target / name).write_bytes(b"old"),
        arguments=lambda inputs, target: [*arguments(inputs), "-o", str(target / name), "--overwrite"],
        look=lambda inputs, target: _look_at_bytes(target / name, b"old", (inputs.results / name).read_bytes()),
        allowed=frozenset({"old", "new"}),
        left=frozenset({name}),
    )


def embed_arguments(inputs: Inputs) -> list[str]:
    """Return the arguments of `toolkit embed`, without its output."""
    return ["embed", str(inputs.matcher), str(inputs.images)]


def report_arguments(inputs: Inputs) -> list[str]:
    """Return the arguments of `toolkit report`, without its output."""
    return ["report", str(inputs.results / "records.jsonl"), "--format", "html", "--images", str(inputs.images)]


def _look_at_page(inputs: Inputs, target: Path) -> str:
    page, new = (target / "report.html").read_bytes(), (inputs.results / "report.html").read_bytes()
    if page.rstrip().endswith(b"</html>") and page.count(b"<img") < new.count(b"<img"):
        return "a page without a thumbnail"
    return {b"old": "old", new: "new"}.get(page, "other bytes")


def _an_export_of_another_checkpoint(inputs: Inputs, target: Path) -> None:
    shutil.copytree(inputs.other, target / inputs.artifact.name)


WRITERS = {
    "export": Writer(
        prepare=_an_export_of_another_checkpoint,
        arguments=lambda inputs, target: (
            [
                "export",
                "--no-draft",
                str(inputs.checkpoint),
                "--recipe",
                "onnx-int8",
                "-o",
                str(target),
                "--on-gate-failure",
                "write",
                "--overwrite",
            ]
        ),
        look=lambda inputs, target: artifact_at(target / inputs.artifact.name, inputs.other, inputs.artifact),
        allowed=frozenset({"old", "new"}),
        left=frozenset({"tiny-onnx-int8"}),
    ),
    "package": Writer(
        prepare=lambda inputs, target: shutil.copy(inputs.packages / "other.tar.gz", target / "package.tar.gz"),
        arguments=lambda inputs, target: ["package", str(inputs.artifact), "-o", str(target / "package.tar.gz"), "--overwrite"],
        look=lambda inputs, target: _look_at_bytes(
            target / "package.tar.gz", (inputs.packages / "other.tar.gz").read_bytes(), (inputs.packages / "artifact.tar.gz").read_bytes()
        ),
        allowed=frozenset({"old", "new"}),
        left=frozenset({"package.tar.gz"}),
    ),
    "unpack": Writer(
        prepare=lambda inputs, target: None,
        arguments=lambda inputs, target: ["unpack", str(inputs.packages / "artifact.tar.gz"), "-o", str(target / "unpacked")],
        look=lambda inputs, target: artifact_at(target / "unpacked", inputs.other, inputs.packages / "unpacked"),
        allowed=frozenset({"nothing", "new"}),
        left=frozenset({"unpacked"}),
    ),
    "bench": Writer(
        prepare=lambda inputs, target: (target / "records.jsonl").write_bytes(b"old\n"),
        arguments=lambda inputs, target: [
            *("bench", str(inputs.artifact), "--images", str(inputs.images), *BENCH),
            *("-o", str(target / "records.jsonl"), "--overwrite"),
        ],
        look=_look_at_records,
        allowed=frozenset({"old", "part", "new"}),
        left=frozenset({"records.jsonl"}),
    ),
    "caption": Writer(
        prepare=lambda inputs, target: None,
        arguments=lambda inputs, target: [
            *("caption", str(inputs.artifact), str(inputs.images), "--json", "-o", str(target / "captions.jsonl"), "--resume"),
        ],
        look=_look_at_captions,
        allowed=frozenset({"nothing", "part", "new"}),
        left=frozenset({"captions.jsonl", "captions.jsonl.meta"}),
    ),
    "distribute": Writer(
        prepare=lambda inputs, target: None,
        arguments=lambda inputs, target: ["distribute", str(inputs.artifact), str(inputs.images), "-o", str(target / "out"), *DISTRIBUTE],
        look=_look_at_shards,
        allowed=frozenset({"nothing", "part", "new"}),
        left=frozenset({"out"}),
    ),
    "embed": _result("embeddings.npz", embed_arguments),
    "report": replace(
        _result("report.html", report_arguments), look=_look_at_page, allowed=frozenset({"old", "new", "a page without a thumbnail"})
    ),
}
"""Name of the command → how it is run."""
