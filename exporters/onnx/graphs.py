"""Trace a torch module into an ONNX graph, and find the weights of a graph's products and lookups."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from exporters.families.adapter import GraphExport

OPSET = 17
"""The first opset with LayerNormalization as one operator. The TorchScript exporter of torch 2.13 supports opsets up to 20."""


def export_graph(export: GraphExport, path: Path) -> None:
    """Trace a module with its example arguments and write the graph, with its weights inside, to `path`.

    Each product with constant weights gets the name of its layer, because the names that the tracer gives depend on who calls a module.
    """
    called: list[str] = []
    hooks = [module.register_forward_pre_hook(lambda *_, layer=layer: called.append(layer)) for layer, module in export.layers.items()]
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # the TorchScript exporter warns of its deprecation at every call; the torch range is pinned
        torch.onnx.export(
            export.module.eval(),
            export.example,
            str(path),
            input_names=export.inputs,
            output_names=export.outputs,
            dynamic_axes=export.axes,
            opset_version=OPSET,
            dynamo=False,
        )
    for hook in hooks:
        hook.remove()
    graph = onnx.load(path)
    for node in graph.graph.node:
        node.doc_string = ""
    if export.layers:
        _name_products(graph.graph, export.layers, called)
    onnx.save(graph, path)


def _name_products(graph: onnx.GraphProto, layers: Mapping[str, nn.Module], called: Sequence[str]) -> None:
    """Name the products of a graph after their layers; in place.

    Args:
        graph: A traced graph.
        layers: Name of a layer → its module.
        called: Names of the layers in the order of their calls, which is that of the graph's nodes. The weights are compared, too.
    """
    weights, products = {tensor.name: tensor for tensor in graph.initializer}, weight_products(graph)
    for node, layer in zip([node for node in graph.node if node.name in products], called, strict=True):
        weight = numpy_helper.to_array(weights[products[node.name]])
        own = [parameter.numpy() for parameter in layers[layer].parameters() if parameter.ndim == weight.ndim]
        assert any(np.array_equal(weight, form) for matrix in own for form in (matrix, matrix.T)), layer
        node.name = layer


def layer_of_table(name: str) -> str:
    """Return the layer of a table that only lookups use: the name of its module, without the module that the graph is traced from."""
    return name.partition(".")[2].rpartition(".")[0]


def weight_products(graph: onnx.GraphProto) -> dict[str, str]:
    """Return node → weight of the MatMul nodes whose second input is a constant, directly or through an Identity node.

    In graphs of `export_graph`, nodes have the names of layers.
    """
    constants = {tensor.name: tensor.name for tensor in graph.initializer}
    constants |= {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Identity" and node.input[0] in constants}
    return {node.name: constants[node.input[1]] for node in graph.node if node.op_type == "MatMul" and node.input[1] in constants}


def lookup_tables(graph: onnx.GraphProto) -> list[str]:
    """Return the matrices f[D,V] of which nodes only gather columns, unless they are quantized: the word embeddings of an untied model."""
    tensors = {tensor.name for tensor in graph.initializer}
    matrices = {tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 2}
    gathered = {node.input[0] for node in graph.node if node.op_type == "Gather" and node.input[0] in matrices}
    others = {name for node in graph.node if node.op_type != "Gather" for name in node.input}
    return sorted(name for name in gathered - others if f"{name}_quantized" not in tensors)
