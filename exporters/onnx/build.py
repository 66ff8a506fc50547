"""Build the graphs of an ONNX Runtime artifact in FP32, FP16, or with dynamic INT8 or INT4 quantization."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import TensorProto

from exporters.calibration.activations import SHIPPED
from exporters.calibration.gram import gram_matrices
from exporters.checkpoint.checkpoint import Checkpoint
from exporters.onnx import blockwise, optimum_int8
from exporters.onnx.fused_attention import fuse_self_attention
from exporters.onnx.graphs import export_graph
from exporters.onnx.storage import optimized, store
from exporters.recipe import Recipe
from exporters.rounding.blocks import round_to_nearest
from exporters.rounding.gptq import gptq_rounding
from runtimes.host.facts import read_host

REQUIRES = {"onnxruntime": ">=1.27"}


def build(
    checkpoint: Checkpoint, recipe: Recipe, directory: Path, calibration_images: Sequence[Path] = SHIPPED
) -> tuple[dict[str, Path], dict[str, dict[str, int]]]:
    """Export, quantize and store the graphs of a checkpoint.

    Args:
        checkpoint: With the image scale of the recipe.
        recipe: A recipe of the runtime "ort".
        directory: Folder for the files.
        calibration_images: Images for layers in 4 bits.

    Returns:
        Role → file, and counts of what was quantized: component → operator → count.
    """
    model = checkpoint.load_model()
    graphs = checkpoint.family.graphs(model.half() if recipe.precision == "fp16" else model)
    components = {graph.role: recipe.component(graph.role) for graph in graphs}
    files = {graph.role: directory / f"{graph.role}.onnx" for graph in graphs}
    for graph in graphs:
        if optimized(components[graph.role]):  # FP32 and FP16 graphs contain standard ONNX operators only
            fuse_self_attention(graph.attention)
        export_graph(graph, files[graph.role])
    del model, graph, graphs
    rounding = round_to_nearest
    if checkpoint.family.per_token and (calibrated := layers_in_4_bits(checkpoint, recipe)):  # GPTQ needs the model's own captions
        rounding = gptq_rounding(gram_matrices(checkpoint, calibrated, read_host().cores, calibration_images))
    applied: dict[str, dict[str, int]] = {}
    payload: dict[str, Path] = {}
    for role, component in components.items():
        if optimized(component):
            optimum_int8.quantize(files[role], component)
            blockwise.quantize(files[role], component, rounding)
        applied[role] = count_quantized(files[role])
        payload |= store(files[role], component)
    return payload, applied


def layers_in_4_bits(checkpoint: Checkpoint, recipe: Recipe) -> set[str]:
    """Return the layers that a recipe stores in 4 bits."""
    layers = ((recipe.component(component), name) for component, names in checkpoint.layers().items() for name in names)
    return {name for component, name in layers if component.layer(name).weights == "qint4"}


def count_quantized(path: Path) -> dict[str, int]:
    """Count the quantized operators of a graph: "MatMul", and "Embedding" for lookups in an integer table."""
    graph = onnx.load(path, load_external_data=False).graph
    int8 = {tensor.name for tensor in graph.initializer if tensor.data_type in (TensorProto.INT8, TensorProto.UINT8)}
    counts = Counter("MatMul" for node in graph.node if node.op_type in ("MatMulInteger", "MatMulNBits"))
    counts.update("Embedding" for node in graph.node if node.op_type == "GatherBlockQuantized")
    counts.update(
        "Embedding" for node in graph.node if node.op_type == "Gather" and node.input[0] in int8 and node.input[0].endswith("_quantized")
    )
    return dict(counts)
