"""Tracing a torch module into an ONNX graph, and finding the products with weights in one."""

import logging
import warnings
from pathlib import Path

import onnx
import torch

from exporters.families.adapter import GraphExport

OPSET = 17
"""First with LayerNormalization as one operator; the TorchScript exporter of torch 2.13 ends at 20."""


def export_graph(export: GraphExport, path: Path) -> None:
    """Trace a module on its example and write the graph to `path`."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # the TorchScript exporter announces its retirement at every call; the torch range is pinned
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
    """Names of the MatMul nodes whose second factor is a constant, directly or through Identity (one tensor under two names)."""
    constants = {tensor.name for tensor in graph.initializer}
    constants |= {node.output[0] for node in graph.node if node.op_type == "Identity" and node.input[0] in constants}
    return [node.name for node in graph.node if node.op_type == "MatMul" and node.input[1] in constants]
