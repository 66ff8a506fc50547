"""Test quantization for torch: exact integers computed by hand or by torch.ao, and counts that follow from the architecture."""

from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch.ao.quantization import PerChannelMinMaxObserver

from exporters.calibration.activations import Calibration
from exporters.calibration.smoothing import smoothed
from exporters.checkpoint.checkpoint import open_checkpoint
from exporters.families.blip_caption import HEAD, TABLE
from exporters.recipes import find_recipe
from runtimes.artifact.folder import open_artifact
from runtimes.engines.pytorch.int8_layers import Int8Embedding, Int8Linear, packing_engine, quantize_rows
from runtimes.host.facts import read_host
from tests.exporters.onnx.onnx_files import ENCODER_PRODUCTS, TORCH_DECODER_PRODUCTS

FLOAT32_EPSILON = 2.0**-23

pytestmark = pytest.mark.filterwarnings("ignore:.*quantized tensor creation functions:UserWarning")


def tensors_of(artifact: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(open_artifact(artifact).path_of("weights"))


class TestTorchRows:
    def test_integers_and_scales_of_a_hand_made_matrix(self):
        weight = torch.tensor(
            [
                [255.0, 1.0, 3.0, -5.0],  # scale 2: 127.5 is clipped, 0.5, 1.5 and -2.5 go to the even neighbour
                [127.5, -127.5, 63.75, 0.4],  # scale 1: -128 is used
                [0.0, 0.0, 0.0, 0.0],  # a zero row must not divide by zero
                [-0.00255, 0.001, 0.0, 0.00001],  # scale 0.00002: 0.001 is 50 of them
            ]
        )
        values, scales = quantize_rows(weight)
        assert values.tolist()[:3] == [[127, 0, 2, -2], [127, -128, 64, 0], [0, 0, 0, 0]]
        assert values.tolist()[3][1:3] == [50, 0]
        assert values.dtype == torch.int8
        assert scales[:3].tolist() == [2.0, 1.0, FLOAT32_EPSILON]
        assert scales[3].item() == pytest.approx(0.00002, rel=1e-6)

    def test_equals_the_per_channel_observer_of_torch_ao(self):
        """Scales are bit-identical. An integer may differ by one if a weight is half-way between two.

        torch.ao multiplies by 1 / scale, but `quantize_rows` divides. The results differ for -max|row|, which is -127.5 scales.
        """
        weight = torch.randn(512, 768, generator=torch.Generator().manual_seed(0))
        observer = PerChannelMinMaxObserver(dtype=torch.qint8, qscheme=torch.per_channel_symmetric, ch_axis=0)
        observer(weight)
        expected_scales, zeros = observer.calculate_qparams()
        expected = torch.quantize_per_channel(weight, expected_scales.double(), zeros, 0, torch.qint8).int_repr()
        values, scales = quantize_rows(weight)
        assert torch.equal(scales, expected_scales)
        different = values != expected
        exact = weight.double() / scales.double()[:, None]
        assert ((exact - exact.floor() - 0.5).abs()[different] < 2e-5).all()
        assert (values.int() - expected.int()).abs().max() <= 1
        assert different.sum() <= 512

    @pytest.mark.parametrize("bias", [True, False])
    def test_linear_is_bit_identical_to_that_of_torch_ao(self, bias):
        random = torch.Generator().manual_seed(1)
        weight, offsets = torch.randn(96, 64, generator=random), torch.randn(96, generator=random) if bias else None
        values, scales = quantize_rows(weight)
        zeros = torch.zeros(96, dtype=torch.int64)
        with packing_engine():
            reference = torch.ao.nn.quantized.dynamic.Linear(64, 96, bias_=bias)
            reference.set_weight_bias(torch._make_per_channel_quantized_tensor(values, scales.double(), zeros, 0), offsets)
            linear = Int8Linear(values, scales, offsets)
        for rows in (1, 7, 257):
            x = torch.randn(2, rows, 64, generator=random)
            assert torch.equal(linear(x), reference(x))

    def test_embedding_gives_the_rows_of_the_table_times_their_scales(self):
        values = torch.tensor([[1, -2, 3], [127, -128, 0], [4, 5, 6]], dtype=torch.int8)
        embedding = Int8Embedding(values, torch.tensor([0.5, 2.0, 0.25]))
        rows = embedding(torch.tensor([[1, 0], [2, 2]]))
        assert rows.tolist() == [[[254.0, -256.0, 0.0], [0.5, -1.0, 1.5]], [[1.0, 1.25, 1.5], [1.0, 1.25, 1.5]]]


class TestTorchArtifact:
    def test_counts_are_those_of_the_architecture(self, tiny_artifacts):
        applied = open_artifact(tiny_artifacts["pytorch-int8"]).manifest.applied
        assert applied == {"encoder": {"Linear": ENCODER_PRODUCTS}, "decoder": {"Linear": TORCH_DECODER_PRODUCTS, "Embedding": 1}}

    def test_every_matrix_is_int8_with_scales_and_nothing_else_is(self, tiny_artifacts, tiny_checkpoint):
        recipe, checkpoint = find_recipe("pytorch-int8"), open_checkpoint(str(tiny_checkpoint))
        weights = smoothed(checkpoint, recipe, Calibration(), read_host().cores).load_weights()
        stored = tensors_of(tiny_artifacts["pytorch-int8"])
        int8 = {name for name, tensor in stored.items() if tensor.dtype == torch.int8}
        assert len(int8) == ENCODER_PRODUCTS + TORCH_DECODER_PRODUCTS
        assert {name for name in stored if name.endswith(".scales")} == {f"{name}.scales" for name in int8}
        for name in int8:
            values, scales = quantize_rows(weights[name])
            assert torch.equal(stored[name], values)
            assert torch.equal(stored[f"{name}.scales"], scales)
        for name, tensor in stored.items():
            if name not in int8 and not name.endswith(".scales"):
                assert torch.equal(tensor, weights[name])

    @pytest.mark.parametrize("recipe", ["pytorch-fp32", "pytorch-int8", "pytorch-fp16"])
    def test_the_tied_table_is_stored_once(self, tiny_artifacts, recipe):
        stored = tensors_of(tiny_artifacts[recipe])
        assert TABLE in stored
        assert HEAD not in stored

    def test_fp16_halves_every_tensor(self, tiny_artifacts, tiny_checkpoint):
        weights = open_checkpoint(str(tiny_checkpoint)).load_weights()
        stored = tensors_of(tiny_artifacts["pytorch-fp16"])
        assert set(stored) == set(weights) - {HEAD}
        assert all(torch.equal(tensor, weights[name].half()) for name, tensor in stored.items())
