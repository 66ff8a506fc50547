"""Measure whether golden captions notice damage: caption with a copy of an artifact in which a thousandth of a weight is zero."""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from runtimes.artifact.folder import Artifact, sha256_of
from runtimes.artifact.manifest import MANIFEST_NAME
from runtimes.engines.ort.graph_check import external_tensors

PART = 1000
"""One in so many bytes of the weight is zeroed, side by side, as a bad sector would."""
WEIGHTS = {"weights": "vision_model.", "encoder-weights": "", "captioner-weights": "encoder/"}
"""Role of a file with the vision tower's weights → what their names start with."""


class Weight(NamedTuple):
    """Place of a weight within a file."""

    name: str
    start: int
    size: int


def with_zeroed_weight(artifact: Artifact, copy: Path) -> str:
    """Copy an artifact's model, hashes made anew, with a thousandth of the vision tower's largest weight zeroed; return that weight's name.

    Args:
        artifact: To be copied; other files than the changed one are hard links where the file system has them.
        copy: An empty folder on a file system with room for the weights.
    """
    files = {name: entry for name, entry in artifact.manifest.files.items() if not entry.optional}
    role = next(entry.role for entry in files.values() if entry.role in WEIGHTS)
    source = artifact.path_of(role)
    weights = _tensors(source) if role == "weights" else _external(artifact, role.removesuffix("-weights"))
    weight = max((weight for weight in weights if weight.name.startswith(WEIGHTS[role])), key=lambda weight: weight.size)
    size = max(1, weight.size // PART)
    for name in files:
        _link_or_copy(artifact.path / name, copy / name, link=name != source.name)
    with (copy / source.name).open("rb+") as stream:
        stream.seek(weight.start + (weight.size - size) // 2)
        stream.write(bytes(size))
    changed = {**files, source.name: replace(files[source.name], sha256=sha256_of(copy / source.name))}
    (copy / MANIFEST_NAME).write_bytes(replace(artifact.manifest, files=changed).content)
    return weight.name


def _link_or_copy(source: Path, target: Path, *, link: bool) -> None:
    try:
        if link:
            os.link(source.resolve(), target)
            return
    except OSError:
        pass
    shutil.copyfile(source, target)


def _tensors(file: Path) -> Iterator[Weight]:
    """Yield the tensors of a safetensors file."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            yield Weight(name, 8 + length + begin, end - begin)


def _external(artifact: Artifact, role: str) -> Iterator[Weight]:
    """Yield the weights in the file beside a graph."""
    path = artifact.path_of(role)
    for tensor in external_tensors(path, path.read_bytes()):
        yield Weight(tensor.name, tensor.offset, tensor.bytes)
