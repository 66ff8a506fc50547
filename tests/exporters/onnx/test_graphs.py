"""Test the graphs of ONNX artifacts: operators are counted from the architecture, float tensors are compared with the checkpoint."""

from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper

from exporters.calibration.activations import Calibration
from exporters.calibration.smoothing import smoothed
from exporters.checkpoint.checkpoint import open_checkpoint
from exporters.recipes import find_recipe
from runtimes.artifact.folder import open_artifact
from tests.exporters.onnx.onnx_files import ENCODER_PRODUCTS, ONNX_DECODER_PRODUCTS, TINY_LAYERS, graph_of

QUANTIZED = ("onnx-int8", "onnx-int4", "onnx-int8-full")
FLOAT = ("onnx-fp32", "onnx-fp16")
ROLES = ("encoder", "decoder")
CROSS_PRODUCTS = 2 * TINY_LAYERS
"""Products for keys and values of cross-attention. They have the same input, which is quantized once by a node of its own."""
LARGE = 16384
"""Float tensors of quantized graphs with at least this many elements are stored in 16 bits."""


@pytest.mark.parametrize("recipe", QUANTIZED)
def test_counts_of_quantized_operators_follow_from_the_architecture(tiny_artifacts, recipe):
    applied = open_artifact(tiny_artifacts[recipe]).manifest.applied
    assert applied == {"encoder": {"MatMul": ENCODER_PRODUCTS}, "decoder": {"MatMul": ONNX_DECODER_PRODUCTS, "Embedding": 1}}


@pytest.mark.parametrize("recipe", ["pytorch-fp32", "pytorch-fp16", *FLOAT])
def test_a_float_recipe_quantizes_nothing(tiny_artifacts, recipe):
    assert open_artifact(tiny_artifacts[recipe]).manifest.applied == {"encoder": {}, "decoder": {}}


@pytest.mark.parametrize("recipe", QUANTIZED)
@pytest.mark.parametrize(
    ("role", "quantized", "self_attentions", "cross_attentions"),
    [
        (
            "encoder",
            {"DynamicQuantizeMatMul": ENCODER_PRODUCTS - CROSS_PRODUCTS, "MatMulIntegerToFloat": CROSS_PRODUCTS},
            TINY_LAYERS,
            0,
        ),
        ("decoder", {"MatMulNBits": ONNX_DECODER_PRODUCTS, "GatherBlockQuantized": 1}, TINY_LAYERS, TINY_LAYERS),
    ],
)
def test_every_constant_is_quantized_and_products_of_activations_stay_float(
    tiny_artifacts, recipe, role, quantized, self_attentions, cross_attentions
):
    operators = Counter(node.op_type for node in graph_of(tiny_artifacts[recipe], role).node)
    kinds = ("MatMulInteger", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "MatMulNBits", "GatherBlockQuantized")
    assert {kind: operators[kind] for kind in kinds if operators[kind]} == quantized
    assert operators["MultiHeadAttention"] == self_attentions
    assert operators["MatMul"] + operators["FusedMatMul"] == 2 * cross_attentions  # query by key, probabilities by value
    assert not {"Conv", "ConvInteger"} & set(operators)


@pytest.mark.parametrize("recipe", FLOAT)
@pytest.mark.parametrize(("role", "attentions", "products"), [("encoder", 2, ENCODER_PRODUCTS), ("decoder", 4, ONNX_DECODER_PRODUCTS)])
def test_float_graphs_contain_standard_onnx_operators_only(tiny_artifacts, recipe, role, attentions, products):
    model = onnx.load(open_artifact(tiny_artifacts[recipe]).path_of(role))
    assert {node.domain for node in model.graph.node} == {""}
    assert {opset.domain for opset in model.opset_import} == {""}
    assert Counter(node.op_type for node in model.graph.node)["MatMul"] == products + 2 * attentions
    onnx.checker.check_model(model, full_check=True)


@pytest.mark.parametrize("recipe", QUANTIZED)
@pytest.mark.parametrize(
    ("role", "own"),
    [
        ("encoder", {"MultiHeadAttention", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "Gelu"}),
        ("decoder", {"MultiHeadAttention", "MatMulNBits", "GatherBlockQuantized", "FusedMatMul", "BiasGelu"}),
    ],
)
def test_quantized_graphs_use_no_other_operators_of_onnx_runtime(tiny_artifacts, recipe, role, own):
    model = onnx.load(open_artifact(tiny_artifacts[recipe]).path_of(role))
    assert {node.op_type for node in model.graph.node if node.domain == "com.microsoft"} - {"SkipLayerNormalization"} == own
    assert {node.domain for node in model.graph.node} == {opset.domain for opset in model.opset_import} == {"", "com.microsoft"}
    assert len(model.opset_import) == 2
    onnx.checker.check_model(model)


@pytest.mark.parametrize(
    ("artifacts", "checkpoint"),
    [("tiny_artifacts", "tiny_checkpoint"), pytest.param("mini_artifacts", "mini_checkpoint", marks=pytest.mark.full)],
)
@pytest.mark.parametrize("recipe", ["onnx-int8", "onnx-int4", "onnx-int8-full"])
def test_float_tensors_of_quantized_graphs_equal_the_checkpoint_with_large_ones_in_fp16(request, artifacts, checkpoint, recipe):
    exact = open_checkpoint(str(request.getfixturevalue(checkpoint)))
    weights = smoothed(exact, find_recipe(recipe), Calibration(), threads=2).load_weights()
    artifact = request.getfixturevalue(artifacts)[recipe]
    expected = dict(weights)
    for name in weights:
        if name.endswith(".attention.self.query.bias"):
            parts = [expected.pop(name.replace("query", part)) for part in ("query", "key", "value")]
            expected[name.replace("query", "qkv")] = torch.cat(parts)
        elif name.endswith("self_attn.qkv.bias") and exact.model.vision_width // exact.model.vision_heads == 64:
            expected[name][: exact.model.vision_width] /= 8  # the scale of the query
    checked = set()
    for tensor in (tensor for role in ROLES for tensor in graph_of(artifact, role).initializer):
        name = tensor.name.removeprefix("model.").removesuffix("_half")
        if name in expected:
            values = numpy_helper.to_array(tensor)
            assert (values.dtype == np.float16) == tensor.name.endswith("_half") == (values.size >= LARGE)
            np.testing.assert_array_equal(values, expected[name].numpy().astype(values.dtype))
            checked.add(name)
    others = ("orm.weight", "norm1.weight", "norm2.weight", "class_embedding", "position_embedding", "position_embeddings.weight")
    assert {name for name in expected if name.endswith((".bias", *others))} <= checked


@pytest.mark.full
@pytest.mark.parametrize("recipe", QUANTIZED)
@pytest.mark.parametrize("role", ROLES)
def test_each_fp16_tensor_is_cast_once_to_fp32(mini_artifacts, recipe, role):
    graph = graph_of(mini_artifacts[recipe], role)
    halves = {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    readers = [node for node in graph.node if halves.intersection(node.input)]
    assert [node.op_type for node in readers] == ["Cast"] * len(halves)
    assert {node.attribute[0].i for node in readers} == {TensorProto.FLOAT}
