"""SmoothQuant: its scales by hand, its choice of alpha, and what it folds into the weights of checkpoints with outliers."""

from dataclasses import replace

import pytest
import torch

from exporters.calibration.activations import Activations, Calibration
from exporters.calibration.smoothing import ALPHAS, SCALE_RANGE, channel_scales, smoothed, squared_errors
from exporters.checkpoint.checkpoint import open_checkpoint
from exporters.export import export
from exporters.recipe import Component, Layer, Recipe
from exporters.recipes import find_recipe
from exporters.rounding.schemes import scheme_of
from runtimes.artifact.folder import open_artifact
from tests.stress import write_stressed

ENCODER = Component(weights="qint8", per_channel=True, reduce_range=True)
FC1, FC1_FOLD = "vision_model.encoder.layers.0.mlp.fc1", "vision_model.encoder.layers.0.layer_norm2"


def recipe_with(smooth, decoder=None):
    components = {"encoder": replace(ENCODER, smooth=smooth), "decoder": decoder or Component()}
    return Recipe(name="smooth", runtime="ort", why="w", components=components, drift_limit_nat=0.5)


def smooth(checkpoint, recipe, images):
    return smoothed(checkpoint, recipe, Calibration(images), threads=1)


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint):
    return open_checkpoint(str(tiny_checkpoint))


@pytest.fixture(scope="module")
def images(drawn_images):
    return [image.path for image in drawn_images]


@pytest.fixture(scope="module")
def stressed(tiny_checkpoint, tmp_path_factory):
    return open_checkpoint(str(write_stressed("channel", tiny_checkpoint, tmp_path_factory.mktemp("stress") / "tiny", 30)))


class TestScales:
    def test_by_hand(self):
        # s = sqrt(max|X| / max|W|) = 2, 6, 12; their geometric mean is 144 ** (1/3)
        scales = channel_scales(torch.tensor([4.0, 9.0, 36.0]), torch.tensor([1.0, 0.25, 0.25]), 0.5)
        torch.testing.assert_close(scales, torch.tensor([2.0, 6.0, 12.0]) / 144 ** (1 / 3))

    def test_an_alpha_of_1_makes_all_maxima_of_activations_equal(self):
        maxima = torch.tensor([1.0, 5.0, 80.0])
        scaled = maxima / channel_scales(maxima, torch.tensor([3.0, 1.0, 2.0]), 1.0)
        torch.testing.assert_close(scaled, scaled[:1].expand(3))

    def test_an_alpha_of_0_changes_nothing(self):
        assert channel_scales(torch.tensor([1.0, 5.0]), torch.tensor([3.0, 1.0]), 0.0).tolist() == [1.0, 1.0]

    @pytest.mark.parametrize("maximum", [0.0, float("inf"), float("nan")])
    def test_a_channel_without_a_usable_maximum_keeps_its_scale(self, maximum):
        for activations, weights in (([4.0, maximum, 1.0], [1.0, 1.0, 1.0]), ([4.0, 2.0, 1.0], [1.0, 0.0, 1.0])):
            scales = channel_scales(torch.tensor(activations), torch.tensor(weights), 0.5)
            assert scales[1] == 1
            torch.testing.assert_close(scales[[0, 2]], torch.tensor([2**0.5, 0.5**0.5]))

    def test_without_any_usable_channel_all_scales_are_1(self):
        assert channel_scales(torch.zeros(3), torch.ones(3), 0.5).tolist() == [1, 1, 1]

    def test_scales_are_clipped(self):
        maxima = torch.ones(1000)
        maxima[:2] = torch.tensor([1e-30, 1e30])
        scales = channel_scales(maxima, torch.ones(1000), 0.9)
        assert scales[:2].tolist() == pytest.approx(SCALE_RANGE)


class TestSquaredErrors:
    SEVEN_BITS = scheme_of(Layer(weights="qint8", per_channel=True, reduce_range=True), inputs=64, is_table=False, runtime="ort")

    def weight_and_inputs(self):
        generator = torch.Generator().manual_seed(0)
        return torch.randn(24, 64, generator=generator), torch.randn(3, 5, 64, generator=generator) * 4 - 1

    def error(self, inputs, weight, scales, kept=slice(None)):
        activations = Activations(lowest=inputs.amin(1), highest=inputs.amax(1), rows=inputs[:, kept])
        return float(squared_errors(activations, weight, scales, self.SEVEN_BITS)[1])

    def test_the_kept_rows_are_rounded_with_the_range_of_the_whole_run(self):
        weight, inputs = self.weight_and_inputs()
        inputs[:, -1] *= 10
        outputs = self.SEVEN_BITS.activations(inputs) @ self.SEVEN_BITS.weights(weight).T - inputs @ weight.T
        error = self.error(inputs, weight, torch.ones(64), kept=slice(2))
        assert error == pytest.approx(float(outputs[:, :2].square().sum()), rel=1e-4)

    def test_the_error_of_rounded_activations_is_that_with_exact_weights(self):
        weight, inputs = self.weight_and_inputs()
        activations = Activations(lowest=inputs.amin(1), highest=inputs.amax(1), rows=inputs)
        error, _ = squared_errors(activations, weight, torch.ones(64), self.SEVEN_BITS)
        expected = ((self.SEVEN_BITS.activations(inputs) - inputs) @ weight.T).square().sum()
        assert float(error) == pytest.approx(float(expected), rel=1e-3)

    def test_scales_that_fit_an_outlier_channel_remove_its_error(self):
        weight, inputs = self.weight_and_inputs()
        ones, scales = torch.ones(64), torch.ones(64)
        scales[7] = 100
        errors = [self.error(inputs * scales, weight / scales, factor) for factor in (ones, scales)]
        assert errors[1] == pytest.approx(self.error(inputs, weight, ones), rel=1e-3)
        assert errors[0] > 100 * errors[1]


class TestSmoothed:
    def test_a_recipe_that_smooths_nothing_returns_the_checkpoint(self, checkpoint, images):
        assert smooth(checkpoint, recipe_with(None), images) is checkpoint
        assert smooth(checkpoint, recipe_with(0.0), images) is checkpoint

    def test_one_alpha_for_all_layers_of_the_component(self, checkpoint, images):
        smoothing = smooth(checkpoint, recipe_with(0.5), images).smoothing
        folds = [
            fold for fold in checkpoint.family.folds(checkpoint.model) if checkpoint.family.component_of(fold.consumers[0]) == "encoder"
        ]
        assert smoothing.alphas == {fold.source: 0.5 for fold in folds}
        assert smoothing.images == len(images)

    def test_the_scales_are_those_of_the_recorded_maxima(self, checkpoint, images):
        maxima = Calibration(images).activations(checkpoint, {"encoder"})[FC1_FOLD].maxima
        weights = checkpoint.load_weights()
        scales = channel_scales(maxima, weights[f"{FC1}.weight"].abs().amax(0), 0.5)
        folded = smooth(checkpoint, recipe_with(0.5), images).load_weights()
        torch.testing.assert_close(folded[f"{FC1}.weight"], weights[f"{FC1}.weight"] * scales)
        torch.testing.assert_close(folded[f"{FC1_FOLD}.bias"], weights[f"{FC1_FOLD}.bias"] / scales)

    def test_channel_outliers_vanish(self, checkpoint, stressed, images):
        """The stressed copy has scaled channels. Smoothing gives both the same weights, up to one factor per fold."""
        plain, copy = (smooth(source, recipe_with(0.5), images).load_weights() for source in (checkpoint, stressed))
        ratios = copy[f"{FC1}.weight"] / plain[f"{FC1}.weight"]
        torch.testing.assert_close(ratios, ratios[:1, :1].expand_as(ratios), rtol=1e-3, atol=0)

    def test_auto_smooths_layers_with_outliers(self, stressed, images):
        smoothing = smooth(stressed, recipe_with("auto"), images).smoothing
        assert set(smoothing.alphas.values()) <= set(ALPHAS)
        assert smoothing.alphas[FC1_FOLD] >= 0.25
        assert set(smoothing.scales) == {source for source, alpha in smoothing.alphas.items() if alpha}

    def test_auto_leaves_a_checkpoint_without_outliers_as_it_is(self, checkpoint, images):
        smoothing = smooth(checkpoint, recipe_with("auto"), images).smoothing
        assert set(smoothing.alphas.values()) == {0.0}
        assert smoothing.scales == {}

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_activations_that_are_not_finite_give_finite_weights(self, checkpoint, images, value):
        class Damaged(Calibration):
            def activations(self, checkpoint, components):
                recorded = super().activations(checkpoint, components)
                return {
                    source: Activations(lowest=a.lowest, highest=torch.full_like(a.highest, value), rows=a.rows)
                    for source, a in recorded.items()
                }

        for alpha in ("auto", 0.5):
            weights = smoothed(checkpoint, recipe_with(alpha), Damaged(images[:2]), threads=1).load_weights()
            assert all(tensor.isfinite().all() for tensor in weights.values())

    def test_the_decoder_is_smoothed_by_its_own_setting(self, checkpoint, images):
        blocks = Component(weights="qint8", block_size=16, smooth=0.4)
        alphas = smooth(checkpoint, recipe_with(None, blocks), images).smoothing.alphas
        assert set(alphas.values()) == {0.4}
        assert all(source.startswith("text_decoder.") for source in alphas)


class TestExport:
    @pytest.mark.parametrize("base", [pytest.param("onnx-int8-fast", marks=pytest.mark.full), "pytorch-int8"])
    def test_two_exports_have_equal_bytes_and_record_the_alphas(self, stressed, drawn_images, tmp_path, base):
        recipe = find_recipe(base)
        components = {name: replace(component, smooth="auto") for name, component in recipe.components.items()}
        recipe = replace(recipe, name="smooth", components=components)
        manifests = []
        for output in ("a", "b"):
            calibration = Calibration([image.path for image in drawn_images[:4]])
            (path,) = export(stressed, [recipe], tmp_path / output, drawn_images[:2], calibration=calibration, on_gate_failure="write")
            manifests.append(open_artifact(path).manifest)
        assert manifests[0].digest == manifests[1].digest
        alphas = manifests[0].optional["smoothing"]["alphas"]
        assert alphas[FC1_FOLD] > 0
        assert manifests[0].optional["smoothing"]["images"] == 4

    def test_the_reference_is_that_of_the_unmodified_checkpoint(self, checkpoint, images):
        renamed = replace(smooth(checkpoint, recipe_with(0.5), images), renamed=True)
        weights = checkpoint.load_weights()
        assert all(torch.equal(tensor.reshape(weights[name].shape), weights[name]) for name, tensor in renamed.renamed_weights().items())
