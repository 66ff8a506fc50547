"""Damage on purpose, so that a check proves that it can fail: a file goes in; it comes out with a flipped bit or a zeroed bit of a layer.

Weights are found without the libraries that wrote them.
"""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from runtimes.artifact.folder import Artifact, sha256_of
from runtimes.artifact.manifest import MANIFEST_NAME
from runtimes.engines.ort.graph_check import MAX_FIELDS, TAGS
from runtimes.engines.ort.protobuf_wire import Slice, Wire

PART = 1000
"""One in so many bytes of the layer is zeroed, side by side, as a bad sector would."""


class Layer(NamedTuple):
    """A tensor's data within a file."""

    name: str
    start: int
    size: int


def flipped(blocks: Iterator[bytes], at: int) -> Iterator[bytes]:
    """Pass blocks on with the lowest bit of byte `at` the other way round."""
    for block in blocks:
        if 0 <= at < len(block):
            block = block[:at] + bytes([block[at] ^ 1]) + block[at + 1 :]
        at -= len(block)
        yield block


@contextlib.contextmanager
def zeroed_layer(artifact: Artifact) -> Iterator[tuple[Path, str]]:
    """Copy an artifact, hashes made anew, with a thousandth of its encoder's largest weight zeroed; give the copy and the weight's name."""
    roles = {entry.role for entry in artifact.manifest.files.values()}
    role = "weights" if "weights" in roles else "encoder-weights"
    source = artifact.path_of(role)
    layer = max(_tensors(source) if role == "weights" else _initializers(artifact), key=lambda layer: layer.size)
    size = max(1, layer.size // PART)
    with tempfile.TemporaryDirectory(prefix="toolkit-verify-") as folder:
        copy = Path(folder)
        for name in artifact.manifest.files:
            if name != source.name:
                _same(artifact.path / name, copy / name)
        shutil.copyfile(source, copy / source.name)
        with (copy / source.name).open("rb+") as stream:
            stream.seek(layer.start + (layer.size - size) // 2)
            stream.write(bytes(size))
        changed = replace(artifact.manifest.files[source.name], sha256=sha256_of(copy / source.name))
        forged = replace(artifact.manifest, files={**artifact.manifest.files, source.name: changed})
        (copy / MANIFEST_NAME).write_bytes(forged.content)
        yield copy, layer.name


def _same(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where that cannot be."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _tensors(file: Path) -> Iterator[Layer]:
    """Yield the weights of the vision tower in a safetensors file."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
    for name, entry in header.items():
        if name.startswith("vision_model."):
            begin, end = entry["data_offsets"]
            yield Layer(name, 8 + length + begin, end - begin)


def _initializers(artifact: Artifact) -> Iterator[Layer]:
    """Yield the encoder's weights in the file beside its graph."""
    content = artifact.path_of("encoder").read_bytes()
    wire = Wire(content, TAGS, MAX_FIELDS)

    def text(where: Slice) -> str:
        return content[slice(*where)].decode()

    for part, graph in wire.fields("model", (0, len(content))):
        if part == "graph":
            for kind, tensor in wire.fields("graph", graph):
                if kind == "initializer":
                    fields = list(wire.fields("tensor", tensor))
                    entries = [dict(wire.fields("entry", value)) for name, value in fields if name == "external"]
                    place = {text(entry["key"]): text(entry["value"]) for entry in entries}
                    if place:
                        yield Layer(text(dict(fields)["name"]), int(place.get("offset", "0")), int(place["length"]))
