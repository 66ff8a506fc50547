"""Trace a torch module into an ONNX graph, and find the weights of a graph's products and lookups."""

import logging
import warnings
from pathlib import Path

import onnx
import torch

from exporters.families.adapter import GraphExport

OPSET = 17
"""The first opset with LayerNormalization as one operator. The TorchScript exporter of torch 2.13 supports opsets up to 20."""


def export_graph(export: GraphExport, path: Path) -> None:
    """Trace a module with its example arguments and write the graph, with its weights inside, to `path`."""
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
    graph = onnx.load(path)
    for node in graph.graph.node:
        node.doc_string = ""
    onnx.save(graph, path)


def weight_products(graph: onnx.GraphProto) -> list[str]:
    """Return the names of the MatMul nodes whose second input is a constant, directly or through an Identity node."""
    constants = {tensor.name for tensor in graph.initializer}
    constants |= {node.output[0] for node in graph.node if node.op_type == "Identity" and node.input[0] in constants}
    return [node.name for node in graph.node if node.op_type == "MatMul" and node.input[1] in constants]


def lookup_tables(graph: onnx.GraphProto) -> list[str]:
    """Return the matrices f[D,V] of which nodes only gather columns, unless they are quantized: the word embeddings of an untied model."""
    tensors = {tensor.name for tensor in graph.initializer}
    matrices = {tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 2}
    gathered = {node.input[0] for node in graph.node if node.op_type == "Gather" and node.input[0] in matrices}
    others = {name for node in graph.node if node.op_type != "Gather" for name in node.input}
    return sorted(name for name in gathered - others if f"{name}_quantized" not in tensors)
