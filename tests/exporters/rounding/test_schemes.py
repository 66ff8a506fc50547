"""The values of each format are those of the exporters and engines: weights are bit-equal, products differ by float rounding."""

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from exporters.onnx.blockwise import packed
from exporters.onnx.optimum_int8 import quantize
from exporters.recipe import Component, Layer
from exporters.rounding.blocks import quantize_blocks, ranges
from exporters.rounding.schemes import BlockScheme, HalfScheme, scheme_of
from runtimes.engines.pytorch.int8_layers import Int8Linear, packing_engine, quantize_rows
from tests.exporters.onnx.onnx_files import initializers, one_product

pytestmark = pytest.mark.filterwarnings("ignore:.*quantized tensor creation functions:UserWarning")
WITHOUT_BLOCKS = [
    Layer(weights=weights, per_channel=per_channel, reduce_range=reduce_range)
    for weights in ("qint8", "quint8")
    for per_channel in (True, False)
    for reduce_range in (False, True)
]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(loc=0.3, size=shape).astype(np.float32)


def scheme(layer, inputs=64, runtime="ort"):
    return scheme_of(layer, inputs=inputs, is_table=False, runtime=runtime)


@pytest.mark.parametrize(("bits", "block"), [(4, 32), (4, 128), (8, 64), (8, 256)])
def test_a_product_in_blocks_is_that_of_onnxruntime(bits, block):
    generator = np.random.default_rng(bits * block)
    weight = generator.normal(size=(256, 48)).astype(np.float32)
    x = generator.normal(size=(2, 5, 256)).astype(np.float32)
    x[0, 0] *= 100
    x[1, 1] = 0
    codes, scales = quantize_blocks(weight, bits, block, ranges(bits, is_table=False))
    sizes = {"K": 256, "N": 48, "bits": bits, "block_size": block, "accuracy_level": 4}
    product = run(
        helper.make_node("MatMulNBits", ["x", "codes", "scales"], ["y"], domain="com.microsoft", **sizes),
        {"codes": packed(codes, bits), "scales": scales},
        x,
    )
    scheme = BlockScheme(bits, block, is_table=False)
    fake = scheme.activations(torch.from_numpy(x)) @ scheme.weights(torch.from_numpy(weight.T.copy())).T
    largest = np.abs(product).max(axis=-1, keepdims=True)
    assert np.all(np.abs(fake.numpy() - product) <= 1e-6 * largest)
    assert np.abs(x @ weight - product).max() > 1e-2  # the test would notice exact activations


@pytest.mark.parametrize("layer", WITHOUT_BLOCKS, ids=lambda layer: f"{layer}{'' if layer.per_channel else ', per tensor'}")
def test_a_product_without_blocks_is_that_of_the_exported_graph(layer, tmp_path):
    weight, x = normal(64, 48), normal(5, 64, seed=1)
    weight[:, 7] = 0
    path = one_product(tmp_path / "graph.onnx", weight)
    fields = {"weights": layer.weights, "per_channel": layer.per_channel, "reduce_range": layer.reduce_range}
    quantize(path, Component(**fields))
    stored, arithmetic = initializers(path), scheme(layer)
    values = arithmetic.weights(torch.from_numpy(weight.T.copy()))
    integers = stored["weight_quantized"].astype(np.float32) - stored["weight_zero_point"].astype(np.float32)
    np.testing.assert_array_equal(values.numpy().T, integers * stored["weight_scale"])
    (product,) = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(["y"], {"x": x})
    np.testing.assert_allclose((arithmetic.activations(torch.from_numpy(x)[None])[0] @ values.T).numpy(), product, rtol=1e-5, atol=1e-4)
    assert np.abs(x @ weight - product).max() > 1e-2


def test_a_product_of_torch_is_that_of_its_engine():
    weight, x = torch.from_numpy(normal(48, 64)), torch.from_numpy(normal(3, 5, 64, seed=1)) * 4 - 1
    with packing_engine():
        linear = Int8Linear(*quantize_rows(weight), None)
    arithmetic = scheme(Layer(weights="qint8", per_channel=True), runtime="torch")
    fake = arithmetic.activations(x) @ arithmetic.weights(weight).T
    product = torch.cat([linear(run[None]) for run in x])  # one range per run
    torch.testing.assert_close(fake, product, rtol=1e-5, atol=1e-4)
    assert (x @ weight.T - product).abs().max() > 1e-2


@pytest.mark.parametrize("layer", [*WITHOUT_BLOCKS, Layer(weights="qint4", block_size=32), Layer(weights="qint8", block_size=64)], ids=str)
def test_zeros_stay_zeros(layer):
    for values in (scheme(layer).weights(torch.zeros(3, 64)), scheme(layer).activations(torch.zeros(2, 5, 64))):
        assert not values.any()


def test_runs_do_not_share_a_scale():
    x = torch.from_numpy(normal(2, 5, 64))
    for runtime in ("ort", "torch"):
        arithmetic = scheme(Layer(weights="qint8", per_channel=True), runtime=runtime)
        beside_outlier = arithmetic.activations(torch.stack([x[0], 1000 * x[1]]))
        assert torch.equal(beside_outlier[0], arithmetic.activations(x)[0])


@pytest.mark.parametrize(("layer", "inputs"), [(Layer(), 64), (Layer(weights="qint4", block_size=32), 24)])
def test_layers_in_fp32_and_those_too_narrow_for_a_block_have_no_arithmetic(layer, inputs):
    assert scheme(layer, inputs) is None


def test_a_block_is_the_largest_power_of_two_that_divides_the_inputs():
    assert scheme(Layer(weights="qint4", block_size=32), 48) == BlockScheme(4, 16, is_table=False)


def test_weights_in_fp16_are_rounded_and_activations_are_not():
    arithmetic, values = scheme(Layer(weights="fp16")), torch.tensor([[1.0, 1 + 2**-12]])
    assert isinstance(arithmetic, HalfScheme)
    assert arithmetic.weights(values).tolist() == [[1, 1]]
    assert arithmetic.activations(values) is values


def run(node, tensors, x):
    """Run one operator of ONNX Runtime on x; return its output."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph([node], "product", inputs, outputs, [numpy_helper.from_array(value, name) for name, value in tensors.items()])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
