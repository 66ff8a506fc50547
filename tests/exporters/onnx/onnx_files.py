"""Numbers of products in a BLIP, counted from its architecture, and helpers that read or write graphs.

The embedding of patches is one. A layer has these products with constant weights. Vision: qkv, projection, two of the MLP. Decoder:
query, key, value and output of self-attention, query and output of cross-attention, two of the MLP; cross-attention's key and value belong
to the encoder, which computes them once per image. The head has two: its transform and the word embeddings. In graphs, query, key and value
are one product.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from runtimes.artifact.folder import open_artifact

TINY_LAYERS = 2
"""Layers of the vision encoder, and of the decoder."""
ENCODER_PRODUCTS = 1 + 4 * TINY_LAYERS + 2 * TINY_LAYERS
TORCH_DECODER_PRODUCTS = 8 * TINY_LAYERS + 2
ONNX_DECODER_PRODUCTS = 6 * TINY_LAYERS + 2


def graph_of(artifact: Path, role: str) -> onnx.GraphProto:
    return onnx.load(open_artifact(artifact).path_of(role)).graph


def stored(artifact: Path, role: str) -> list[onnx.TensorProto]:
    """Return the tensors of a graph; of tensors with the same place in the file of weights, only the first."""
    first_names = {}
    for number, tensor in enumerate(onnx.load(open_artifact(artifact).path_of(role), load_external_data=False).graph.initializer):
        first_names.setdefault({entry.key: entry.value for entry in tensor.external_data}.get("offset", f"inside {number}"), tensor.name)
    return [tensor for tensor in graph_of(artifact, role).initializer if tensor.name in first_names.values()]


def initializers(path: Path) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def one_product(path: Path, weight: np.ndarray, *, with_lookup: bool = False) -> Path:
    """Write a graph y = x @ weight f[D,V]; `with_lookup` adds a Gather of its columns, as in the tied embedding."""
    nodes = [helper.make_node("MatMul", ["x", "weight"], ["y"], name="/product")]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, weight.shape[0]])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    if with_lookup:
        nodes.insert(0, helper.make_node("Gather", ["weight", "ids"], ["columns"], name="/lookup", axis=1))
        inputs.append(helper.make_tensor_value_info("ids", TensorProto.INT64, [None]))
        outputs.append(helper.make_tensor_value_info("columns", TensorProto.FLOAT, None))
    graph = helper.make_graph(nodes, "product", inputs, outputs, [numpy_helper.from_array(weight, "weight")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path
