"""Quantize the weights of an FP32 graph in blocks of 4- or 8-bit integers; embedding and head then share one quantized table.

A block is `block_size` consecutive inputs of one output channel. It has one scale and no zero point, because ONNX Runtime's AVX2 kernel
computes wrong products for one row with zero points (onnxruntime#29853). The operators are `MatMulNBits`, which quantizes activations per
row and block at `accuracy_level` 4, and `GatherBlockQuantized`.

Axes: K inputs, N outputs, V vocabulary, D width.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from exporters.onnx.graphs import layer_of_table, lookup_tables, weight_products
from exporters.recipe import Component
from exporters.rounding.blocks import BITS, Blocks, Float32, Rounding, blocks_of, round_to_nearest

DOMAIN = "com.microsoft"
INT8_ACTIVATIONS = 4
"""Value of `accuracy_level` for 8-bit activations. These kernels do not saturate on CPUs without VNNI."""


def packed(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Pack codes u8[...,n] into bytes u8[...,n*bits/8]; of two 4-bit codes, the first is in the low half."""
    return codes if bits == BITS["qint8"] else codes[..., 0::2] | (codes[..., 1::2] << np.uint8(4))


def quantize(path: Path, component: Component, rounding: Rounding = round_to_nearest) -> None:
    """Replace the MatMul nodes of layers with `block_size` by block-quantized ones, in place.

    If `block_size` does not divide K, the largest power of two that does is used. A matrix stays in FP32 if that is below `SMALLEST_BLOCK`.

    Args:
        path: The graph, with its weights inside the file.
        component: The format of each layer.
        rounding: How weights are rounded.
    """
    model = onnx.load(path)
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    lookups = {node.input[0] for node in graph.node if node.op_type == "Gather"}
    products = weight_products(graph)
    done: dict[tuple[str, Blocks], str] = {}  # weight and format → start of the names of its codes and scales
    for node in graph.node:
        if node.name not in products or (blocks := blocks_of(component.layer(node.name), weights[products[node.name]].dims[0])) is None:
            continue
        name = products[node.name]
        if (name, blocks) not in done:  # layers with equal weights share them, and may differ in their format
            done[name, blocks] = node.name if any(name == other for other, _ in done) else name
            codes, scales = rounding(node.name, numpy_helper.to_array(weights[name]), blocks, is_table=name in lookups)
            _append_quantized(graph, done[name, blocks], packed(codes, blocks.bits), scales)
        inputs, outputs = weights[name].dims
        node.op_type, node.domain = "MatMulNBits", DOMAIN
        node.input[:] = [node.input[0], f"{done[name, blocks]}_quantized", f"{done[name, blocks]}_scale"]
        attributes = {"K": inputs, "N": outputs, "bits": blocks.bits, "block_size": blocks.size, "accuracy_level": INT8_ACTIVATIONS}
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
    for name in lookup_tables(graph):
        if (blocks := blocks_of(component.layer(layer_of_table(name)), weights[name].dims[0])) is not None:
            done[name, blocks] = name
            codes, scales = rounding(layer_of_table(name), numpy_helper.to_array(weights[name]), blocks, is_table=True)
            _append_quantized(graph, name, packed(codes, blocks.bits), scales)
    if not done:
        return
    share_table(graph, {name: blocks for name, blocks in done if name in lookups})
    inputs_of_nodes = {name for node in graph.node for name in node.input}
    used = [tensor for tensor in graph.initializer if tensor.name in inputs_of_nodes]
    del graph.initializer[:]
    graph.initializer.extend(used)
    if not any(opset.domain == DOMAIN for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    onnx.save(model, path)


def _append_quantized(graph: onnx.GraphProto, name: str, codes: NDArray[np.uint8], scales: Float32) -> None:
    """Append the packed codes and the scales of a weight to a graph; their names start with `name`."""
    graph.initializer.append(numpy_helper.from_array(codes, f"{name}_quantized"))
    graph.initializer.append(numpy_helper.from_array(scales, f"{name}_scale"))


def share_table(graph: onnx.GraphProto, tables: Mapping[str, Blocks]) -> None:
    """Replace the embedding (a Gather of columns of the head's matrix [D,V], then a Transpose) by a lookup in the head's codes and scales.

    Args:
        graph: Modified in place.
        tables: Name of a quantized table → its blocks.
    """
    for position, node in enumerate(graph.node):
        if node.op_type != "Gather" or node.input[0] not in tables:
            continue
        table, ids = node.input
        (transpose,) = [other for other in graph.node if node.output[0] in other.input]
        out, name = transpose.output[0], node.name
        graph.initializer.append(numpy_helper.from_array(np.array([-1]), f"{name}_last"))
        graph.initializer.append(numpy_helper.from_array(np.array([0, 0, -1]), f"{name}_row"))
        steps = [
            # GatherBlockQuantized needs the scales with one more axis than MatMulNBits. They are reshaped when the graph is loaded.
            helper.make_node("Unsqueeze", [f"{table}_scale", f"{name}_last"], [f"{out}_scale"], f"{name}_scale"),
            helper.make_node(
                "GatherBlockQuantized",
                [f"{table}_quantized", ids, f"{out}_scale"],
                [f"{out}_blocks"],
                f"{name}_blocks",
                domain=DOMAIN,
                bits=tables[table].bits,
                block_size=tables[table].size,
                quantize_axis=2,
                gather_axis=0,
            ),
            helper.make_node("Reshape", [f"{out}_blocks", f"{name}_row"], [out], f"{name}_join"),
        ]
        graph.node.remove(transpose)
        graph.node.remove(node)
        for offset, step in enumerate(steps):
            graph.node.insert(position + offset, step)
        return
