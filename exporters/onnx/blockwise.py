"""Quantize the weights of an FP32 graph in blocks of 4- or 8-bit integers; embedding and head then share one quantized table.

A block is `block_size` consecutive inputs of one output channel. It has one scale and no zero point, because ONNX Runtime's AVX2 kernel
computes wrong products for one row with zero points (onnxruntime#29853). The operators are `MatMulNBits`, which quantizes activations per
row and block at `accuracy_level` 4, and `GatherBlockQuantized`.

Axes: K inputs, N outputs, V vocabulary, D width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from exporters.onnx.graphs import layer_of_table, lookup_tables, weight_products
from exporters.recipes import Component, Layer

DOMAIN = "com.microsoft"
BITS = {"qint4": 4, "qint8": 8}
INT8_ACTIVATIONS = 4
"""Value of `accuracy_level` for 8-bit activations. These kernels do not saturate on CPUs without VNNI."""
SMALLEST_BLOCK = 16
"""Smallest `block_size` that `MatMulNBits` supports."""
SHRINK = (1.0, 0.97, 0.94, 0.91, 0.88, 0.85, 0.82, 0.79, 0.76)
"""Ranges to try for a 4-bit block, as parts of its largest magnitude. Clipping the largest weight can reduce the block's total error.

The word embeddings are not clipped, because that makes logits smaller. Measured drift on 121 tuning images of the shipped model with
blocks of 128: +0.031 nat/token without the search, +0.053 with the search everywhere, +0.014 with the search everywhere except there.
"""

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Blocks:
    """The blocks of a weight: bits per code and inputs per block."""

    bits: int
    size: int


def ranges(bits: int, *, is_table: bool) -> Sequence[float]:
    """Return the ranges to try for the blocks of a weight, as parts of a block's largest magnitude."""
    return SHRINK if bits == BITS["qint4"] and not is_table else (1.0,)


def quantize_blocks(weight: Float32, bits: int, block: int, parts: Sequence[float] = (1.0,)) -> tuple[NDArray[np.uint8], Float32]:
    """Quantize a matrix symmetrically in blocks: weight ≈ (code - 2**(bits-1)) * scale.

    The weight of largest magnitude gets the code 0, whatever its sign, because signed codes have one more negative value. For each block,
    the range with the least squared error is used.

    Args:
        weight: f32[K,N].
        bits: 4 or 8.
        block: Inputs per block; divides K.
        parts: Ranges to try, as parts of a block's largest magnitude.

    Returns:
        Codes u8[N,K/block,block] and scales f32[N,K/block].
    """
    half = 1 << (bits - 1)
    blocks = np.ascontiguousarray(weight.T).reshape(weight.shape[1], -1, block)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(-1, keepdims=True), -1)
    codes, scales, least = _rounded(blocks, largest * np.float32(-parts[0] / half), half)
    for part in parts[1:]:
        new_codes, new_scales, error = _rounded(blocks, largest * np.float32(-part / half), half)
        better = error < least
        codes, scales, least = np.where(better, new_codes, codes), np.where(better, new_scales, scales), np.minimum(error, least)
    return (codes + half).astype(np.uint8), scales[..., 0]


def _rounded(blocks: Float32, scales: Float32, half: int) -> tuple[Float32, Float32, Float32]:
    """Round blocks f32[...,n] with scales f32[...,1]; return signed codes f32[...,n], scales as stored and squared error f32[...,1]."""
    half_scales = scales.astype(np.float16).astype(np.float32)  # scales are stored in FP16, so codes are rounded with the FP16 values
    scales = np.where(np.isfinite(half_scales) & (half_scales != 0), half_scales, scales)
    codes = np.clip(np.rint(blocks / np.where(scales == 0, np.float32(1), scales)), -half, half - 1)
    return codes, scales, np.square(codes * scales - blocks).sum(-1, keepdims=True)


class Rounding(Protocol):
    """Computes codes and scales of a weight."""

    def __call__(self, layer: str, weight: Float32, blocks: Blocks, *, is_table: bool) -> tuple[NDArray[np.uint8], Float32]:
        """Return codes and scales as `quantize_blocks` does, for the weight f32[K,N] of a layer; `is_table`: it is the word embeddings."""
        ...


def round_to_nearest(layer: str, weight: Float32, blocks: Blocks, *, is_table: bool) -> tuple[NDArray[np.uint8], Float32]:
    """Round without calibration, with the best of `ranges`; see `Rounding`."""
    return quantize_blocks(weight, blocks.bits, blocks.size, ranges(blocks.bits, is_table=is_table))


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


def blocks_of(layer: Layer, inputs: int) -> Blocks | None:
    """Return the blocks of a weight with K inputs, or None if it is not quantized in blocks."""
    if layer.block_size is None:
        return None
    size = min(layer.block_size, inputs & -inputs)  # the largest power of two that divides K
    return Blocks(BITS[layer.weights], size) if size >= SMALLEST_BLOCK else None


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
