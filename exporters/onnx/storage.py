"""How an ONNX graph is stored: a graph goes in; a small graph and one file of weights, in which every tensor stands once, come out.

Graphs that may use ONNX Runtime's own operators are stored as its optimizer leaves them (level EXTENDED, which knows no CPU), so that a
device does not fuse them anew at each start. The weights stand in ONNX external data: the runtime maps them, so that a tensor which it
repacks for the CPU is never held twice, and rows of the word table that no caption needs are never read.
"""

import hashlib
from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from exporters.writing.artifact_writer import payload_name
from runtimes.artifact.folder import sha256_of
from runtimes.errors import OutputError

LARGE = 1 << 14
"""Elements from which on a float tensor is stored in half: a rounding of 2**-11 is small beside that of INT8."""

LARGE_SCALES = 1 << 10
"""Elements from which on scales are stored in half where that rounds none of them: a block's scale is off for all of its weights."""

OUTSIDE_BYTES = 1 << 10
"""Tensors of at least this size stand outside the graph."""

ALIGNMENT = 64
"""Of tensors in the file: a cache line, and what vector instructions want."""

LOOKUPS = ("Gather", "GatherBlockQuantized")


def store(path: Path, *, quantized: bool) -> dict[str, Path]:
    """Bring a graph into the form in which it ships; return its files by role, which is the graph's stem.

    Args:
        path: The graph, its weights inside; replaced.
        quantized: It may use operators of ONNX Runtime, and large floats that are left in it may be stored in half.
    """
    if quantized:
        optimize(path)
        halve(path)
    model = onnx.load(path)
    separate_lookups(model.graph)
    weights = path.with_name(f"{path.stem}-weights.bin")
    move_out(model.graph, weights)
    onnx.save(model, path)
    return {path.stem: path, weights.stem: weights}


def optimize(path: Path) -> None:
    """Fuse operators as ONNX Runtime does when it loads a graph, in place.

    Constants are not folded: it would make FP32 of what is stored in half, and a second copy of the word table's scales.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(path)
    content = path.read_bytes()
    try:
        onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"], disabled_optimizers=["ConstantFolding"])
    except Exception as error:  # onnxruntime's exceptions have no common base, and keep to themselves what the system said
        if "serialization failed" in str(error):
            raise OutputError(path, "onnxruntime could not write it; is the disk full?") from error
        raise
    model = onnx.load(path)
    used = {node.domain for node in model.graph.node} | {""}
    opsets = [opset for opset in model.opset_import if opset.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(opsets)
    onnx.save(model, path)


def halve(path: Path) -> None:
    """Store large floats (positions, patches, scales that half holds exactly) as FP16, in place; loading makes FP32 of them."""
    model = onnx.load(path)
    graph = model.graph
    for tensor in [t for t in graph.initializer if t.data_type == TensorProto.FLOAT and prod(t.dims) >= LARGE_SCALES]:
        values = numpy_helper.to_array(tensor)
        half = values.astype(np.float16)
        if not np.array_equal(half, values) if tensor.name.endswith("_scale") else values.size < LARGE:
            continue
        graph.node.insert(0, helper.make_node("Cast", [f"{tensor.name}_half"], [tensor.name], f"{tensor.name}_half", to=TensorProto.FLOAT))
        graph.initializer.append(numpy_helper.from_array(half, f"{tensor.name}_half"))
        graph.initializer.remove(tensor)
    onnx.save(model, path)


def separate_lookups(graph: onnx.GraphProto) -> None:
    """Give a table that is both looked up and multiplied by a name for each use; `move_out` stores it once all the same.

    ONNX Runtime repacks what is multiplied by and then lets go of the original, if nothing else reads it; of what is only looked up, it
    maps the pages that are asked for. Under one name the whole table stays beside its packed form (23 MB of BLIP-base INT8).
    """
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        name = node.input[0] if node.op_type in LOOKUPS else ""
        if name in tensors and sum(list(other.input).count(name) for other in graph.node) > 1:
            twin = graph.initializer.add()
            twin.CopyFrom(tensors[name])
            twin.name = node.input[0] = f"{name}_looked_up"


def move_out(graph: onnx.GraphProto, path: Path) -> None:
    """Move a graph's large tensors into a file, each content once; the graph names it as an artifact will."""
    places: dict[bytes, tuple[int, int]] = {}
    with path.open("wb") as stream:
        for _, content in _large(graph):
            digest = hashlib.sha256(content).digest()
            if digest not in places:
                stream.write(bytes(-stream.tell() % ALIGNMENT))
                places[digest] = stream.tell(), len(content)
                stream.write(content)
    name = payload_name(path, sha256_of(path))
    for tensor, content in list(_large(graph)):
        offset, length = places[hashlib.sha256(content).digest()]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": name, "offset": offset, "length": length}.items():
            tensor.external_data.add(key=key, value=str(value))


def _large(graph: onnx.GraphProto) -> Iterator[tuple[TensorProto, bytes]]:
    for tensor in graph.initializer:
        if not tensor.HasField("raw_data"):  # small ones that a library spelt out number by number
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
        if len(tensor.raw_data) >= OUTSIDE_BYTES:
            yield tensor, tensor.raw_data
