"""Test the emulation: its drift against that of artifacts, whole recipes and single layers."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch

from exporters.checkpoint.checkpoint import open_checkpoint
from exporters.emulation.drift import Emulation
from exporters.emulation.model import formats_of
from exporters.export import export
from exporters.families.blip_caption import layer_of
from exporters.recipe import Component, Layer
from exporters.recipes import find_recipe
from exporters.rounding.schemes import scheme_of
from runtimes.loading import load

pytestmark = pytest.mark.filterwarnings("ignore:.*quantized tensor creation functions:UserWarning")
FC2, QKV = "vision_model.encoder.layers.1.mlp.fc2", "text_decoder.bert.encoder.layer.0.attention.self.qkv"


def scores_of_artifact(path, images):
    """Return the sum of log-probabilities of each image's captions, f64[N]."""
    captioner = load(path, device="cpu", threads=1)
    return np.array([scores.sum() for scores in captioner.score([i.path for i in images], captions=[i.texts for i in images])])


def scores_of_emulation(checkpoint, recipe, images):
    """Return the same for an emulated recipe, and for FP32."""
    emulation = Emulation(checkpoint, checkpoint, recipe.runtime, threads=1)
    examples = emulation.examples(images)
    emulation.model.use(formats_of(recipe, checkpoint.layers()))
    session = emulation.model.session(1)
    return np.array([emulation._score(session, e.inputs, e.captions) for e in examples]), np.array([e.log_probability for e in examples])


def rounded_copy(checkpoint, directory, layer, layer_format):
    """Write a checkpoint whose weights of a layer are stored without loss. GPTQ, which the emulation does not compute, keeps them."""
    shutil.copytree(checkpoint, directory)
    tensors = safetensors.torch.load_file(directory / "model.safetensors")
    for name in tensors:
        if name.endswith(".weight") and layer_of(name.removesuffix(".weight")) == layer:
            scheme = scheme_of(layer_format, inputs=tensors[name].shape[1], is_table=False, runtime="ort")
            tensors[name] = scheme.weights(tensors[name])
    safetensors.torch.save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


FULL = [pytest.param(name, marks=pytest.mark.full) for name in ("onnx-int4", "onnx-int8-full", "pytorch-int8")]


@pytest.mark.parametrize("name", ["onnx-int8", *FULL])
def test_scores_of_a_recipe_change_as_much_as_those_of_its_artifact(tiny_checkpoint, tiny_artifacts, drawn_images, name):
    """They are not equal: a difference of 1e-7 in front of a rounding can become one step behind it."""
    emulated, exact = scores_of_emulation(open_checkpoint(str(tiny_checkpoint)), find_recipe(name), drawn_images)
    artifact = scores_of_artifact(tiny_artifacts[name], drawn_images)
    assert 0.5 < np.std(emulated - exact) / np.std(artifact - exact) < 2
    error = np.std(emulated - artifact) / np.sqrt(len(drawn_images))
    assert abs(np.mean(emulated - artifact)) < 3 * error


@pytest.mark.parametrize(
    ("role", "layer", "layer_format"),
    [
        ("encoder", FC2, Layer(weights="qint8", per_channel=True, reduce_range=True)),
        ("encoder", FC2, Layer(weights="qint4", block_size=32)),
        ("decoder", QKV, Layer(weights="qint4", block_size=16)),
        ("decoder", QKV, Layer(weights="fp16")),
    ],
)
@pytest.mark.full
def test_scores_with_one_layer_in_another_format_equal_those_of_an_artifact(
    tiny_checkpoint, drawn_images, tmp_path, role, layer, layer_format
):
    directory = (
        rounded_copy(tiny_checkpoint, tmp_path / "rounded", layer, layer_format) if layer_format.weights == "qint4" else tiny_checkpoint
    )
    checkpoint, images = open_checkpoint(str(directory)), drawn_images[:4]
    recipe = replace(find_recipe("onnx-int8"), components={role: Component(layers={layer: layer_format})})
    (path,) = export(checkpoint, [recipe], tmp_path, images[:2], on_gate_failure="write")
    emulated, _ = scores_of_emulation(checkpoint, recipe, images)
    _, exact = scores_of_emulation(open_checkpoint(str(tiny_checkpoint)), recipe, images)
    change = scores_of_artifact(path, images) - exact
    assert np.abs(change).max() > 0
    np.testing.assert_allclose(emulated - exact, change, atol=0.1 * np.abs(change).max() + 1e-4)


def test_image_states_are_computed_again_only_if_a_layer_of_the_vision_model_changes(tiny_checkpoint, drawn_images):
    checkpoint = open_checkpoint(str(tiny_checkpoint))
    emulation = Emulation(checkpoint, checkpoint, "ort", threads=1)
    examples = emulation.examples(drawn_images[:2])
    runs = []
    emulation.model.module.vision_model.register_forward_hook(lambda *_: runs.append(1))
    eight_bits = Layer(weights="qint8", block_size=16)
    drifts = [emulation.drift(formats, examples).nat for formats in ({}, {QKV: eight_bits}, {QKV: eight_bits, FC2: eight_bits}, {})]
    assert len(runs) == 4  # 2 images with FC2 in 8 bits, and again with FP32
    assert drifts[0] == drifts[3] == 0
    assert len(set(drifts)) == 3
