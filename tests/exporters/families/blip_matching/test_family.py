"""The matcher's adapter: components, quantized tables, and what needs a captioner."""

import json

import pytest
import torch

from exporters.calibration.activations import SHIPPED, Calibration
from exporters.calibration.smoothing import smoothed
from exporters.checkpoint.checkpoint import open_checkpoint
from exporters.checkpoint.summary import summarize
from exporters.export import export
from exporters.finetune.finetune import TrainingSettings, finetune
from exporters.recipe import DEFAULT, Component, Recipe
from exporters.recipes import find_recipe
from exporters.sensitivity import measure_sensitivity
from runtimes.errors import CheckpointError, RecipeError, RequestError

TABLE = "text_encoder.embeddings.word_embeddings"
SMOOTH = Component(weights="qint8", per_channel=True, smooth=0.5)


@pytest.fixture(scope="module")
def checkpoint(tiny_matcher):
    return open_checkpoint(str(tiny_matcher))


def test_a_checkpoint_is_described_by_its_task(tiny_matcher, checkpoint):
    description = summarize(tiny_matcher)
    assert (description["family"], description["refused"]) == ("blip matching", [])
    assert description["parameters"] == sum(parameter.numel() for parameter in checkpoint.empty_module().parameters())
    assert checkpoint.model.embedding_width == 16


def test_layers_belong_to_what_runs_once_per_image_or_per_text(checkpoint):
    layers = checkpoint.layers()
    assert "vision_proj" in layers["encoder"]
    assert "text_encoder.encoder.layer.0.crossattention.self.key" in layers["encoder"]
    assert {"text_proj", "itm_head", TABLE, "text_encoder.encoder.layer.1.attention.self.qkv"} <= set(layers["text"])


def test_smoothing_the_text_encoder_changes_no_score_in_fp32(checkpoint):
    """Folded scales change weights and not results, so scales from other texts than the users' are safe."""
    recipe = Recipe(name="smooth", runtime="ort", why="x", components={DEFAULT: SMOOTH}, drift_limit_nat=1.0)
    scaled = smoothed(checkpoint, recipe, Calibration(), 1)
    alphas = scaled.smoothing.alphas
    assert {name.split(".")[0] for name, alpha in alphas.items() if alpha} == {"vision_model", "text_encoder"}
    pixels, ids = torch.rand(2, 3, 32, 32), torch.tensor([[2, 5, 9, 3], [2, 7, 7, 3]])
    results = []
    for each in (checkpoint, scaled):
        model = each.load_model()
        with torch.inference_mode():
            embeddings, *cross = model.encode(pixels)
            results.append(torch.cat([embeddings.ravel(), model.embed_texts(ids).ravel(), model.match(ids, cross)]))
    assert torch.allclose(*results, atol=1e-5)


@pytest.mark.parametrize(("recipe", "tables"), [("onnx-fp32", 0), ("onnx-int8", 1), ("pytorch-int8", 1)])
def test_quantized_recipes_quantize_both_components_and_the_word_embeddings(recipe, tables, matcher_artifacts):
    applied = json.loads((matcher_artifacts[recipe] / "manifest.json").read_bytes())["applied"]
    assert applied["text"].get("Embedding", 0) == tables
    assert (sum(applied["encoder"].values()) > 0) == (tables > 0)


def test_the_weights_of_the_text_encoder_are_stored_once(matcher_artifacts, checkpoint):
    manifest = json.loads((matcher_artifacts["onnx-fp32"] / "manifest.json").read_bytes())
    stored = sum(entry["bytes"] for entry in manifest["files"].values() if entry["role"].endswith("-weights"))
    assert 0.95 * checkpoint.fp32_bytes < stored <= checkpoint.fp32_bytes


def test_what_needs_captions_is_refused(checkpoint, drawn_images, tmp_path):
    recipe = find_recipe("onnx-int8")
    with pytest.raises(RequestError, match="matching"):
        measure_sensitivity(checkpoint, recipe, drawn_images, None, calibration=Calibration(SHIPPED), threads=1)
    with pytest.raises(RequestError, match="matching"):
        finetune(checkpoint, recipe, drawn_images, tmp_path / "trained", TrainingSettings(), device=None)
    with pytest.raises(RecipeError, match="single"):
        list(export(checkpoint, [find_recipe("onnx-int8-single")], tmp_path, drawn_images))


def test_a_matcher_with_the_class_of_a_captioner_is_refused(tiny_matcher, tmp_path):
    for file in tiny_matcher.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["BlipForConditionalGeneration"]}))
    with pytest.raises(CheckpointError, match="BlipForImageTextRetrieval"):
        open_checkpoint(str(tmp_path))
