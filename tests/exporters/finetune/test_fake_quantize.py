"""The fake-quantized module computes what the artifact computes: weights are bit-equal, logits differ by float rounding.

The exporter rounds 4-bit weights with GPTQ. It keeps weights that 4 bits store without loss, such as those of a fine-tuned checkpoint.
"""

import shutil
from collections import Counter

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from onnx import numpy_helper

from exporters.calibration.activations import Calibration
from exporters.calibration.smoothing import smoothed
from exporters.checkpoint.checkpoint import open_checkpoint
from exporters.export import export
from exporters.finetune.fake_quantize import fake_quantize
from exporters.finetune.quantized_layers import quantized_layers, stored_as_fp16, tie_heads
from exporters.recipe import Component, Recipe
from exporters.recipes import find_recipe
from exporters.rounding.schemes import BlockScheme
from runtimes import load
from runtimes.artifact.folder import open_artifact
from runtimes.errors import RecipeError
from runtimes.images.reading import preprocess, read_image

RECIPES = ("onnx-int4", "onnx-int8")


def prepare(directory, recipe):
    """Return the checkpoint, its fake-quantized module and the fake weights."""
    checkpoint = open_checkpoint(str(directory))
    prepared = smoothed(checkpoint, recipe, Calibration(), threads=1)
    model = tie_heads(checkpoint, prepared.load_model())
    return checkpoint, model, fake_quantize(model, quantized_layers(checkpoint, recipe), stored_as_fp16(checkpoint, recipe))


@pytest.fixture(scope="module")
def tuned(tiny_checkpoint, drawn_images, tmp_path_factory):
    """Recipe → a checkpoint whose weights in blocks are stored without loss, and its artifact."""
    pairs = {}
    for name in RECIPES:
        folder = tmp_path_factory.mktemp(name)
        shutil.copytree(tiny_checkpoint, folder / "tuned")
        _, _, fakes = prepare(tiny_checkpoint, find_recipe(name))
        tensors = safetensors.torch.load_file(folder / "tuned" / "model.safetensors")
        rounded = {weight: fake.values for weight, fake in fakes.items() if isinstance(fake.scheme, BlockScheme)}
        safetensors.torch.save_file(tensors | rounded, folder / "tuned" / "model.safetensors", metadata={"format": "pt"})
        checkpoint = open_checkpoint(str(folder / "tuned"))
        (artifact,) = export(checkpoint, [find_recipe(name)], folder, drawn_images, on_gate_failure="write")
        pairs[name] = folder / "tuned", artifact
    return pairs


def stored_rows(artifact):
    """Return how often each row of dequantized weights, as bytes, is in the products of an artifact's graphs."""
    rows = Counter()
    opened = open_artifact(artifact)
    for role in ("encoder", "decoder"):
        model = onnx.load(opened.path_of(role))
        tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        casts = [node for node in model.graph.node if node.op_type == "Cast" and node.input[0] in tensors]
        tensors |= {node.output[0]: tensors[node.input[0]].astype(np.float32) for node in casts}
        for node in model.graph.node:
            if node.op_type == "MatMulNBits":
                settings = {attribute.name: attribute.i for attribute in node.attribute}
                codes = tensors[node.input[1]]
                codes = codes if settings["bits"] == 8 else np.stack([codes & 15, codes >> 4], axis=-1)
                codes = codes.reshape(settings["N"], -1, settings["block_size"]).astype(np.float32) - (1 << (settings["bits"] - 1))
                values = codes * tensors[node.input[2]].reshape(settings["N"], -1, 1)
            elif node.op_type in ("DynamicQuantizeMatMul", "MatMulIntegerToFloat"):
                scale = tensors[node.input[2 if node.op_type == "DynamicQuantizeMatMul" else 3]]
                values = tensors[node.input[1]].T.astype(np.float32) * scale[:, None]
            else:
                continue
            rows.update(row.tobytes() for row in values.reshape(len(values), -1) + 0.0)  # -0.0 is 0.0
    return rows


@pytest.mark.parametrize("name", RECIPES)
def test_weights_are_bit_equal_to_those_of_the_artifact(name, tuned):
    checkpoint, artifact = tuned[name]
    _, _, fakes = prepare(checkpoint, find_recipe(name))
    assert Counter((row.numpy() + 0.0).tobytes() for fake in fakes.values() for row in fake.values) == stored_rows(artifact)


@pytest.mark.parametrize("name", RECIPES)
def test_logits_are_those_of_the_artifact(name, tuned, drawn_images):
    """Nearly all logits differ by float rounding only. In front of a rounding to integers, it can change a code of an activation."""
    directory, artifact = tuned[name]
    checkpoint, model, _ = prepare(directory, find_recipe(name))
    exact, forced = checkpoint.load_model(), checkpoint.family.forced
    session = load(artifact, threads=1).stepwise_session
    ids = np.array([[62, 7, 8, 9, 10, 11]])
    errors, changes = [], []
    for image in drawn_images:
        pixels = preprocess(read_image(image.path), checkpoint.image)[None]
        state = session.select(session.encode({"pixels": pixels}), np.zeros(1, np.int64), np.zeros(1, np.int64))
        expected, _ = session.step(ids, state, np.arange(ids.shape[1]))
        with torch.inference_mode():
            states = [forced.image_states(module, torch.from_numpy(pixels)) for module in (model, exact)]
            fake, fp32 = (forced.forced_logits(*pair, torch.from_numpy(ids)) for pair in zip((model, exact), states, strict=True))
        errors.append(np.abs(fake.numpy() - expected))
        changes.append(np.abs(fp32.numpy() - expected))
    assert np.median(errors) < 1e-6
    assert np.mean(errors) < 0.1 * np.mean(changes)


def test_gradients_pass_the_rounding(tiny_checkpoint):
    _, model, fakes = prepare(tiny_checkpoint, find_recipe("onnx-int4"))
    layer = model.get_submodule("text_decoder.bert.encoder.layer.0.output.dense").requires_grad_(True)
    x = torch.randn(2, 3, layer.weight.shape[1], generator=torch.Generator().manual_seed(0), requires_grad=True)
    layer(x).sum().backward()
    values = fakes["text_decoder.bert.encoder.layer.0.output.dense.weight"]
    torch.testing.assert_close(x.grad, values.values.sum(0).expand_as(x))
    torch.testing.assert_close(layer.weight.grad, values.scheme.activations(x.detach()).sum((0, 1)).expand_as(layer.weight))


@pytest.mark.parametrize("name", ["onnx-fp32", "pytorch-int8", "onnx-int8-fast"])
def test_recipes_that_cannot_be_trained(name, tiny_checkpoint):
    with pytest.raises(RecipeError, match=name):
        quantized_layers(open_checkpoint(str(tiny_checkpoint)), find_recipe(name))


def test_weights_per_tensor_cannot_be_trained(tiny_checkpoint):
    components = {"*": Component(weights="qint8")}
    recipe = Recipe(name="per-tensor", runtime="ort", why="Test.", components=components, drift_limit_nat=1)
    with pytest.raises(RecipeError, match="per channel"):
        quantized_layers(open_checkpoint(str(tiny_checkpoint)), recipe)
