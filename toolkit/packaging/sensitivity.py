"""Make a damaged copy of an artifact, to measure whether golden captions notice damage: 0.1 % of one weight is set to zero."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from runtimes.artifact.folder import Artifact, sha256_of
from runtimes.artifact.manifest import MANIFEST_NAME
from runtimes.engines.ort.graph_check import external_tensors

PART = 1000
"""1/1000 of the weight's bytes are zeroed. They are contiguous, as in a bad disk sector."""
WEIGHTS = {"weights": "vision_model.", "encoder-weights": "", "captioner-weights": "encoder/"}
"""Role of a file that contains the vision tower's weights → prefix of their names in that file."""


class Weight(NamedTuple):
    """Name, offset and size in bytes of a weight in a file."""

    name: str
    start: int
    size: int


def with_zeroed_weight(artifact: Artifact, copy: Path) -> str:
    """Copy an artifact, with 1/1000 of the vision tower's largest weight set to zero and valid hashes in its manifest.

    Args:
        artifact: The artifact. Unchanged files become hard links where the file system supports them.
        copy: An empty folder, on a file system with space for the weights.

    Returns:
        The name of the changed weight.
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
            target.symlink_to(source.resolve())  # a hard link would change the ctime of a file that another process may be loading
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
    """Yield the weights that an ONNX graph stores as external data."""
    path = artifact.path_of(role)
    for tensor in external_tensors(path, path.read_bytes()):
        yield Weight(tensor.name, tensor.offset, tensor.bytes)
