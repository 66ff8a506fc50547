"""Weights in blocks: an FP32 graph goes in; products with 4- or 8-bit weights and one table for embedding and head come out.

A block is `block_size` neighbouring inputs of one output; it has one scale and no zero point, for ONNX Runtime's AVX2 kernel gives wrong
products of one row with zero points (onnxruntime#29853). The operators are `MatMulNBits`, which quantizes activations per row and block at
`accuracy_level` 4, and `GatherBlockQuantized`. K inputs, N outputs, V words, D width.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from exporters.onnx.graphs import weight_products
from exporters.recipes import Component

DOMAIN = "com.microsoft"
BITS = {"qint4": 4, "qint8": 8}
INT8_ACTIVATIONS = 4
"""`accuracy_level`: activations in 8 bits. The kernels are right on CPUs without VNNI (README, "Decisions")."""
SMALLEST_BLOCK = 16
"""Of the operator."""
SHRINK = (1.0, 0.97, 0.94, 0.91, 0.88, 0.85, 0.82, 0.79, 0.76)
"""Parts of the largest magnitude tried as a 4-bit block's range: clipping it a little costs less than coarser steps for all the others.

Not for the word table, whose clipping shortens logits: on the 121 tuning images of the shipped model (blocks of 128), drift is +0.031
nat/token without the search, +0.053 with it everywhere and +0.014 with it everywhere but there.
"""

Float32 = NDArray[np.float32]


def quantize_blocks(weight: Float32, bits: int, block: int, parts: Sequence[float] = (1.0,)) -> tuple[NDArray[np.uint8], Float32]:
    """Quantize f32[K,N] symmetrically to codes u8[N,K/block,block] and scales f32[N,K/block]: weight ≈ (code - 2**(bits-1)) * scale.

    The weight of largest magnitude takes the code 0, whichever its sign, since codes reach one further down than up. Of several parts of
    that magnitude tried as a block's range, the one with the least squared error is taken.
    """
    half = 1 << (bits - 1)
    blocks = np.ascontiguousarray(weight.T).reshape(weight.shape[1], -1, block)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(-1, keepdims=True), -1)
    codes, scales, least = _rounded(blocks, largest * np.float32(-parts[0] / half), half)
    for part in parts[1:]:
        tried, scale, error = _rounded(blocks, largest * np.float32(-part / half), half)
        better = error < least
        codes, scales, least = np.where(better, tried, codes), np.where(better, scale, scales), np.minimum(error, least)
    return (codes + half).astype(np.uint8), scales[..., 0]


def _rounded(blocks: Float32, scales: Float32, half: int) -> tuple[Float32, Float32, Float32]:
    """Blocks f32[...,n] and scales f32[...,1] → signed codes f32[...,n], the scales and the squared error f32[...,1]."""
    half_scales = scales.astype(np.float16).astype(np.float32)  # codes are made with the scale that is stored
    scales = np.where(np.isfinite(half_scales) & (half_scales != 0), half_scales, scales)
    codes = np.clip(np.rint(blocks / np.where(scales == 0, np.float32(1), scales)), -half, half - 1)
    return codes, scales, np.square(codes * scales - blocks).sum(-1, keepdims=True)


def packed(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Codes u8[...,n] → bytes u8[...,n*bits/8], the first of two in the low half."""
    return codes if bits == BITS["qint8"] else codes[..., 0::2] | (codes[..., 1::2] << np.uint8(4))


def quantize(path: Path, component: Component) -> None:
    """Replace the products of an FP32 graph by block-quantized ones, in place; a matrix whose K no block divides stays as it is."""
    assert component.block_size is not None
    model = onnx.load(path)
    graph, bits = model.graph, BITS[component.weights]
    weights = {tensor.name: tensor for tensor in graph.initializer}
    source = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Identity" and node.input[0] in weights}
    lookups = {node.input[0] for node in graph.node if node.op_type == "Gather"}
    wanted = {name for name in weight_products(graph) if not any(fnmatchcase(name, pattern) for pattern in component.keep_fp32)}
    done: dict[str, int] = {}  # weight → its block
    for node in graph.node:
        if node.name not in wanted:
            continue
        name = source.get(node.input[1], node.input[1])
        inputs, outputs = weights[name].dims
        block = min(component.block_size, inputs & -inputs)  # the largest power of two that divides K
        if block < SMALLEST_BLOCK:
            continue
        if name not in done:
            parts = SHRINK if bits == BITS["qint4"] and name not in lookups else (1.0,)
            codes, scales = quantize_blocks(numpy_helper.to_array(weights[name]), bits, block, parts)
            graph.initializer.append(numpy_helper.from_array(packed(codes, bits), f"{name}_quantized"))
            graph.initializer.append(numpy_helper.from_array(scales, f"{name}_scale"))
            done[name] = block
        node.op_type, node.domain = "MatMulNBits", DOMAIN
        node.input[:] = [node.input[0], f"{name}_quantized", f"{name}_scale"]
        attributes = {"K": inputs, "N": outputs, "bits": bits, "block_size": block, "accuracy_level": INT8_ACTIVATIONS}
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
    share_table(graph, done, bits)
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    if done and not any(opset.domain == DOMAIN for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    onnx.save(model, path)


def share_table(graph: onnx.GraphProto, blocks: dict[str, int], bits: int) -> None:
    """Let the embedding, which gathers columns of the head's matrix [D,V] and transposes them, read the head's codes and scales."""
    for position, node in enumerate(graph.node):
        if node.op_type != "Gather" or node.input[0] not in blocks:
            continue
        table, ids = node.input
        (transpose,) = [other for other in graph.node if node.output[0] in other.input]
        out, name = transpose.output[0], node.name
        graph.initializer.append(numpy_helper.from_array(np.array([-1]), f"{name}_last"))
        graph.initializer.append(numpy_helper.from_array(np.array([0, 0, -1]), f"{name}_row"))
        steps = [
            # The two operators want the scales in two shapes; the second one is made when the graph is loaded.
            helper.make_node("Unsqueeze", [f"{table}_scale", f"{name}_last"], [f"{out}_scale"], f"{name}_scale"),
            helper.make_node(
                "GatherBlockQuantized",
                [f"{table}_quantized", ids, f"{out}_scale"],
                [f"{out}_blocks"],
                f"{name}_blocks",
                domain=DOMAIN,
                bits=bits,
                block_size=blocks[table],
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
