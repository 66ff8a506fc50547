"""Test the contribution of single layers, on the tiny checkpoint with one layer that loses more than all others."""

import shutil

import pytest
import safetensors.torch

from exporters.calibration.activations import Calibration
from exporters.checkpoint.checkpoint import open_checkpoint
from exporters.gate.labelled_image import LabelledImage
from exporters.mixed_precision.journal import DriftJournal
from exporters.recipe import Component, Recipe
from exporters.recipes import find_recipe
from exporters.sensitivity import measure_sensitivity
from runtimes.errors import RecipeError

NORM, FC1 = "vision_model.encoder.layers.0.layer_norm2", "vision_model.encoder.layers.0.mlp.fc1"
UNSMOOTHED = Recipe(
    name="unsmoothed",
    runtime="ort",
    why="Two components without smoothing.",
    components={"encoder": Component(weights="qint8", per_channel=True), "decoder": Component(weights="qint8", block_size=64)},
    drift_limit_nat=0.02,
)


@pytest.fixture(scope="module")
def outlier_checkpoint(tiny_checkpoint, tmp_path_factory):
    path = shutil.copytree(tiny_checkpoint, tmp_path_factory.mktemp("outlier") / "outlier")
    weights = safetensors.torch.load_file(path / "model.safetensors")
    for name in ("weight", "bias"):
        weights[f"{NORM}.{name}"][0] *= 1000
    weights[f"{FC1}.weight"][:, 0] /= 1000
    safetensors.torch.save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    return open_checkpoint(str(path))


def measure(checkpoint, recipe, images, path):
    return measure_sensitivity(checkpoint, recipe, images, DriftJournal(path, {}), calibration=Calibration([images[0].path]), threads=1)


@pytest.mark.full
def test_the_layer_with_the_outlier_contributes_most(outlier_checkpoint, drawn_images, tmp_path):
    images = [LabelledImage(image.path, ()) for image in drawn_images[:4]]
    path = tmp_path / "layers.jsonl"
    result = measure(outlier_checkpoint, UNSMOOTHED, images, path)
    names = [each.layer for each in result.layers]
    assert set(names) == {name for layers in outlier_checkpoint.layers().values() for name in layers}
    assert names[0] == FC1
    most = result.layers[0]
    assert most.only.nat > max(each.only.nat for each in result.layers[1:])
    assert most.rest.nat < result.whole.nat
    assert most.estimate > max(each.estimate for each in result.layers[1:])
    assert all(each.bytes_saved > 0 for each in result.layers)
    before = path.read_bytes()
    assert measure(outlier_checkpoint, UNSMOOTHED, images, path) == result  # from the journal
    assert path.read_bytes() == before


def test_a_recipe_without_quantized_layers_is_an_error(tiny_checkpoint, drawn_images, tmp_path):
    with pytest.raises(RecipeError):
        measure(open_checkpoint(str(tiny_checkpoint)), find_recipe("onnx-fp32"), drawn_images[:1], tmp_path / "layers.jsonl")
