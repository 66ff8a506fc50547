"""Quantize a graph to dynamic INT8 with optimum's `ORTQuantizer`. No other module imports optimum.

optimum does not pass on ONNX Runtime's option `MatMulConstBOnly`, so the nodes to quantize are named one by one. Products of two
activations (in attention) are not quantized. Then the embedding is changed to read the head's INT8 table instead of an FP32 copy of its
own.
"""

import logging
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantFormat, QuantizationMode, QuantType
from optimum.onnxruntime import ORTQuantizer
from optimum.onnxruntime.configuration import QuantizationConfig
from transformers import PretrainedConfig

from exporters.onnx.graphs import layer_of_table, lookup_tables, weight_products
from exporters.recipe import Component, Layer

WEIGHT_TYPES = {"qint8": QuantType.QInt8, "quint8": QuantType.QUInt8}


def quantize(path: Path, component: Component) -> None:
    """Quantize the layers of an FP32 graph that have INT8 weights without blocks, in place.

    Args:
        path: The graph, with its weights inside the file.
        component: The format of each layer.
    """
    graph = onnx.load(path, load_external_data=False).graph
    layers = {name: component.layer(name) for name in weight_products(graph)}
    by_format: dict[tuple[str, bool, bool], list[str]] = {}  # optimum quantizes all nodes of a run alike
    for name, layer in layers.items():
        if without_blocks(layer):
            by_format.setdefault((layer.weights, layer.per_channel, layer.reduce_range), []).append(name)
    for nodes in by_format.values():
        _quantize_nodes(path, layers[nodes[0]], nodes)
    if not by_format:
        return
    model = onnx.load(path)
    quantize_lookup_tables(model.graph, component)
    share_table(model.graph)
    onnx.save(model, path)


def without_blocks(layer: Layer) -> bool:
    """Return whether a layer has INT8 weights without blocks."""
    return layer.quantized and layer.block_size is None


def _quantize_nodes(path: Path, layer: Layer, nodes: list[str]) -> None:
    """Quantize products of a graph to one format, in place."""
    config = QuantizationConfig(
        is_static=False,
        format=QuantFormat.QOperator,
        mode=QuantizationMode.IntegerOps,
        activations_dtype=QuantType.QUInt8,
        weights_dtype=WEIGHT_TYPES[layer.weights],
        weights_symmetric=layer.weights == "qint8",
        per_channel=layer.per_channel,
        reduce_range=layer.reduce_range,
        nodes_to_quantize=nodes,
        operators_to_quantize=["MatMul"],
    )
    root = logging.getLogger()
    level = root.level
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root.setLevel(logging.ERROR)  # the quantizer logs advice, through the root logger, that does not apply to these graphs
        try:
            ORTQuantizer(path, config=PretrainedConfig()).quantize(config, scratch, file_suffix="")
        finally:
            root.setLevel(level)
        (Path(scratch) / path.name).replace(path)


def quantize_lookup_tables(graph: onnx.GraphProto, component: Component) -> None:
    """Append the INT8 form of word embeddings f[D,V] that no product uses, with one scale per word; in place."""
    tables = {name for name in lookup_tables(graph) if without_blocks(component.layer(layer_of_table(name)))}
    for tensor in [tensor for tensor in graph.initializer if tensor.name in tables]:
        codes, scales = quantize_columns(numpy_helper.to_array(tensor))
        for suffix, values in (("quantized", codes), ("scale", scales), ("zero_point", np.zeros(len(scales), np.int8))):
            graph.initializer.append(numpy_helper.from_array(values, f"{tensor.name}_{suffix}"))


def quantize_columns(table: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantize f[D,V] symmetrically per column; return codes i8[D,V] and scales f32[V]."""
    scales = np.maximum(np.abs(table).max(axis=0) / np.float32(127), np.finfo(np.float32).eps)
    return np.rint(table / scales).astype(np.int8), scales


def share_table(graph: onnx.GraphProto) -> None:
    """Make the embedding read the head's quantized matrix [D,V], with its scales and zero points, and remove the FP32 copy; in place."""
    names = {tensor.name: tensor for tensor in graph.initializer}
    for position, node in enumerate(graph.node):
        if node.op_type != "Gather" or f"{node.input[0]}_quantized" not in names:
            continue
        table, ids, out = node.input[0], node.input[1], node.output[0]
        per_word = names[f"{table}_scale"].dims != []
        steps = [helper.make_node("Gather", [f"{table}_quantized", ids], [f"{out}_q"], axis=1)]
        steps.append(helper.make_node("Cast", [f"{out}_q"], [f"{out}_f"], to=TensorProto.FLOAT))
        value = f"{out}_f"
        if np.any(numpy_helper.to_array(names[f"{table}_zero_point"])):
            steps += _of_words(f"{table}_zero_point", ids, f"{out}_zp", per_word=per_word)
            steps.append(helper.make_node("Cast", [steps[-1].output[0]], [f"{out}_zpf"], to=TensorProto.FLOAT))
            steps.append(helper.make_node("Sub", [value, f"{out}_zpf"], [f"{out}_s"]))
            value = f"{out}_s"
        steps += _of_words(f"{table}_scale", ids, f"{out}_scale", per_word=per_word)
        steps.append(helper.make_node("Mul", [value, f"{out}_scale"], [out]))
        graph.node.remove(node)
        for offset, step in enumerate(steps):
            step.name = f"{node.name}_int8_{offset}"
            graph.node.insert(position + offset, step)
        if table in names:
            graph.initializer.remove(names[table])
        return


def _of_words(parameter: str, ids: str, output: str, *, per_word: bool) -> list[onnx.NodeProto]:
    """Return nodes that look up a quantization parameter per word, or pass on the single one of the table."""
    if per_word:
        return [helper.make_node("Gather", [parameter, ids], [output], axis=0)]
    return [helper.make_node("Identity", [parameter], [output])]
