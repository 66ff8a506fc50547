"""Local error: the rounded weights and outputs are those of the exporters and engines."""

import numpy as np
import pytest
import torch

from exporters.calibration.activations import Activations
from exporters.calibration.local_error import rounded_weight, squared_error
from exporters.onnx.blockwise import quantize_blocks
from exporters.recipes import Component
from runtimes.engines.pytorch.int8_layers import Int8Linear, packing_engine, quantize_rows

pytestmark = pytest.mark.filterwarnings("ignore:.*quantized tensor creation functions:UserWarning")
SEVEN_BITS = Component(weights="qint8", per_channel=True, reduce_range=True)
EIGHT_BITS = Component(weights="qint8", per_channel=True)
OUT, IN = 24, 64


@pytest.fixture
def weight():
    return torch.randn(OUT, IN, generator=torch.Generator().manual_seed(0))


def activations_of(inputs):
    """Summaries of inputs f32[G,K,C] of which all rows are kept."""
    return Activations(lowest=inputs.amin(1), highest=inputs.amax(1), rows=inputs)


@pytest.fixture
def inputs():
    return torch.randn(3, 5, IN, generator=torch.Generator().manual_seed(1)) * 4 - 1


def test_the_error_is_that_of_torch_s_engine(weight, inputs):
    codes, scales = quantize_rows(weight)
    with packing_engine():
        layer = Int8Linear(codes, scales, None)
    actual = torch.cat([layer(run) for run in inputs])  # one range per run
    expected = (actual - inputs.flatten(0, 1) @ weight.T).square().sum()
    assert squared_error(activations_of(inputs), weight, torch.ones(IN), EIGHT_BITS, 7) == pytest.approx(float(expected), rel=0.1)


@pytest.mark.parametrize(("weights", "bits"), [("qint8", 8), ("qint4", 4)])
def test_weights_in_blocks_are_about_as_far_off_as_the_exporter_s(weight, weights, bits):
    component = Component(weights=weights, block_size=32)
    codes, scales = quantize_blocks(weight.T.numpy(), bits, 32)
    exported = ((codes.astype(np.float32) - 2 ** (bits - 1)) * scales[..., None]).reshape(OUT, IN)
    expected = np.square(exported - weight.numpy()).sum()
    assert float((rounded_weight(weight, component, 32) - weight).square().sum()) == pytest.approx(expected, rel=0.35)


@pytest.mark.parametrize(
    ("component", "steps"),
    [
        (EIGHT_BITS, 254),
        (SEVEN_BITS, 126),
        (Component(weights="qint8", per_channel=True), 254),
        (Component(weights="quint8", per_channel=True), 255),
    ],
)
def test_weights_per_channel_have_the_steps_of_their_bits(weight, component, steps):
    rounded = rounded_weight(weight, component, None)
    for row, values in zip(weight, rounded, strict=True):
        width = (row.amax() - row.amin()) / steps if component.weights == "quint8" else 2 * row.abs().max() / steps
        assert (values - row).abs().max() <= width / 2 * 1.001
        assert len(values.unique()) > IN // 3


def test_one_scale_per_tensor_is_coarser(weight):
    weight[0] *= 50
    plain = Component(weights="qint8")
    errors = [float((rounded_weight(weight, component, None) - weight)[1:].square().sum()) for component in (plain, EIGHT_BITS)]
    assert errors[0] > 100 * errors[1]


def test_scales_that_fit_an_outlier_channel_remove_its_error(weight, inputs):
    scales = torch.ones(IN)
    scales[7] = 100
    stressed, narrow = inputs * scales, weight / scales
    errors = [squared_error(activations_of(stressed), narrow, factor, SEVEN_BITS, 8) for factor in (torch.ones(IN), scales)]
    assert errors[1] == pytest.approx(squared_error(activations_of(inputs), weight, torch.ones(IN), SEVEN_BITS, 8), rel=1e-3)
    assert errors[0] > 100 * errors[1]


def test_zero_inputs_and_weights_give_no_error():
    zeros = activations_of(torch.zeros(2, 3, IN))
    for component in (EIGHT_BITS, Component(weights="qint4", block_size=32)):
        assert squared_error(zeros, torch.zeros(OUT, IN), torch.ones(IN), component, 8) == 0.0
