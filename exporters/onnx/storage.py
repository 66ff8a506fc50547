"""Store an ONNX graph as a small graph file and one file of weights (ONNX external data) that contains each tensor once.

Quantized graphs are stored after ONNX Runtime's optimizer (level EXTENDED, which is independent of the CPU), so that devices need not fuse
operators at each start. ONNX Runtime maps the file of weights into memory. A tensor that it repacks for the CPU is then in memory once, and
rows of the word embeddings that no caption needs are not read.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from exporters.onnx.graphs import layer_of_table, lookup_tables, weight_products
from exporters.recipe import Component
from exporters.writing.artifact_writer import payload_name
from runtimes.artifact.folder import sha256_of
from runtimes.errors import OutputError

LARGE = 1 << 14
"""FP32 tensors with at least this many elements are stored as FP16. The relative rounding error of 2**-11 is small compared to INT8's."""

LARGE_SCALES = 1 << 10
"""Scales with at least this many elements are stored as FP16 if FP16 is exact: an error of a scale affects all weights of its block."""

EXTERNAL_BYTES = 1 << 10
"""Tensors of at least this size are stored as external data."""

ALIGNMENT = 64
"""Offsets of tensors in the file are multiples of this: one cache line, and the width of the widest vector registers."""

LOOKUPS = ("Gather", "GatherBlockQuantized")


def optimized(component: Component) -> bool:
    """Return whether the graph of a component is stored after ONNX Runtime's optimizer: its layers are not all in FP32 or all in FP16."""
    return any(each.quantized for each in component.formats) or bool(component.layers)


def store(path: Path, component: Component) -> dict[str, Path]:
    """Convert a graph to the form in which artifacts store it.

    Args:
        path: The graph, with its weights inside the file; replaced. Its stem is its role.
        component: The format of each layer. If some are quantized, use operators of ONNX Runtime, and store the other large FP32 tensors as
            FP16, except the weights of layers whose format is FP32.

    Returns:
        Role → file: the graph and its weights.

    Raises:
        OutputError: onnxruntime cannot write the graph.
    """
    if optimized(component):
        formats = weight_formats(onnx.load(path, load_external_data=False).graph, component)
        optimize(path)
        store_as_fp16(path, formats)
    model = onnx.load(path)
    duplicate_lookup_names(model.graph)
    weights = path.with_name(f"{path.stem}-weights.bin")
    externalize_weights(model.graph, weights)
    onnx.save(model, path)
    return {path.stem: path, weights.stem: weights}


def optimize(path: Path) -> None:
    """Fuse operators with ONNX Runtime's optimizer, in place.

    Constant folding is disabled: it would convert FP16 tensors back to FP32 and duplicate the scales of the word embeddings.

    Raises:
        OutputError: onnxruntime cannot write the graph.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(path)
    content = path.read_bytes()
    try:
        onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"], disabled_optimizers=["ConstantFolding"])
    except Exception as error:  # onnxruntime's exceptions have no common base class and contain no error number of the system
        if "serialization failed" in str(error):
            raise OutputError(path, "onnxruntime could not write it; is the disk full?") from error
        raise
    model = onnx.load(path)
    used = {node.domain for node in model.graph.node} | {""}
    opsets = [opset for opset in model.opset_import if opset.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(opsets)
    onnx.save(model, path)


def weight_formats(graph: onnx.GraphProto, component: Component) -> dict[str, str]:
    """Return tensor → number format for the weights and tables that are not quantized yet."""
    layers = weight_products(graph) | {layer_of_table(table): table for table in lookup_tables(graph)}
    return {tensor: component.layer(layer).weights for layer, tensor in layers.items()}


def store_as_fp16(path: Path, formats: Mapping[str, str] = MappingProxyType({})) -> None:
    """Store FP32 tensors as FP16, in place; a Cast restores FP32 at load.

    These are the weights of layers whose format is FP16, scales that are exact in FP16, and all other large tensors, except the weights of
    layers whose format is FP32.

    Args:
        path: The graph.
        formats: Tensor → number format, from `weight_formats`.
    """
    model = onnx.load(path)
    graph = model.graph
    for tensor in [t for t in graph.initializer if t.data_type == TensorProto.FLOAT]:
        values = numpy_helper.to_array(tensor)
        half = values.astype(np.float16)
        if not _stored_as_fp16(tensor.name, values, half, formats.get(tensor.name)):
            continue
        graph.node.insert(0, helper.make_node("Cast", [f"{tensor.name}_half"], [tensor.name], f"{tensor.name}_half", to=TensorProto.FLOAT))
        graph.initializer.append(numpy_helper.from_array(half, f"{tensor.name}_half"))
        graph.initializer.remove(tensor)
    onnx.save(model, path)


def _stored_as_fp16(name: str, values: NDArray[np.float32], half: NDArray[np.float16], layer_format: str | None) -> bool:
    """Return whether a tensor is stored as FP16; `layer_format` is None for tensors other than the weights of a layer."""
    if layer_format in ("fp16", "fp32"):
        return layer_format == "fp16"
    if name.endswith("_scale"):
        return values.size >= LARGE_SCALES and np.array_equal(half, values)
    return values.size >= LARGE


def duplicate_lookup_names(graph: onnx.GraphProto) -> None:
    """Give a table two names if both a lookup and a product use it; `externalize_weights` still stores it once.

    ONNX Runtime repacks the weights of a product and releases the original if no other node uses it. Of a table that only lookups use, it
    reads only the mapped pages that are needed. With a single name, the whole table stays in memory beside its repacked form (23 MB for
    BLIP-base INT8).
    """
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        name = node.input[0] if node.op_type in LOOKUPS else ""
        if name in tensors and sum(list(other.input).count(name) for other in graph.node) > 1:
            twin = graph.initializer.add()
            twin.CopyFrom(tensors[name])
            twin.name = node.input[0] = f"{name}_looked_up"


def externalize_weights(graph: onnx.GraphProto, path: Path) -> None:
    """Move the large tensors of a graph into a file of external data; equal tensors are stored once.

    Args:
        graph: Modified in place. It refers to the file by its name in an artifact, see `payload_name`.
        path: The file to write.
    """
    extents: dict[bytes, tuple[int, int]] = {}
    with path.open("wb") as stream:
        for _, content in _large(graph):
            digest = hashlib.sha256(content).digest()
            if digest not in extents:
                stream.write(bytes(-stream.tell() % ALIGNMENT))
                extents[digest] = stream.tell(), len(content)
                stream.write(content)
    name = payload_name(path, sha256_of(path))
    for tensor, content in list(_large(graph)):
        offset, length = extents[hashlib.sha256(content).digest()]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": name, "offset": offset, "length": length}.items():
            tensor.external_data.add(key=key, value=str(value))


def _large(graph: onnx.GraphProto) -> Iterator[tuple[TensorProto, bytes]]:
    """Yield each large tensor with its bytes; convert tensors without `raw_data` first."""
    for tensor in graph.initializer:
        if not tensor.HasField("raw_data"):  # libraries write small tensors as lists of numbers
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
        if len(tensor.raw_data) >= EXTERNAL_BYTES:
            yield tensor, tensor.raw_data
