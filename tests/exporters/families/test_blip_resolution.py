"""Test smaller images: positions and captions equal those of transformers' `interpolate_pos_encoding`; artifacts are marked approximate."""

import logging
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from exporters.checkpoint.checkpoint import open_checkpoint
from exporters.export import export
from exporters.families.blip_caption import POSITIONS
from exporters.families.blip_reference import HfCaptioner
from exporters.families.blip_resolution import resized
from exporters.recipe import Recipe
from exporters.recipes import RECIPES
from runtimes.artifact.folder import open_artifact
from runtimes.host.facts import usable_cores
from runtimes.images.reading import read_image
from runtimes.loading import load

pytestmark = pytest.mark.full  # exports or benchmarks of its own, half a minute

SMALL = Recipe(name="small", runtime="ort", why="FP32 of fewer pixels.", image_scale=0.75, drift_limit_nat=10.0)


@pytest.fixture(scope="module")
def checkpoint(mini_checkpoint):
    return open_checkpoint(str(mini_checkpoint))


@pytest.fixture(scope="module")
def hf(mini_checkpoint):
    return HfCaptioner(mini_checkpoint, threads=usable_cores())


@pytest.fixture(scope="module")
def small_artifacts(checkpoint, sample_images, tmp_path_factory):
    recipes = [SMALL, replace(SMALL, name="small-torch", runtime="torch")]
    return list(export(checkpoint, recipes, tmp_path_factory.mktemp("small"), sample_images[:6]))


@pytest.mark.parametrize(
    ("image_px", "patch_px", "scale", "expected_px"),
    [(384, 16, 0.75, 288), (224, 14, 0.75, 168), (224, 14, 0.7, 154), (32, 16, 0.75, 16), (224, 14, 0.01, 14), (230, 14, 0.5, 112)],
)
def test_sizes_are_whole_patches(checkpoint, image_px, patch_px, scale, expected_px):
    shape, image = resized(replace(checkpoint.model, image_px=image_px, patch_px=patch_px), checkpoint.image, scale)
    assert (shape.image_px, image.height_px, image.width_px) == (expected_px,) * 3
    assert shape.vision_tokens == (expected_px // patch_px) ** 2 + 1


@pytest.mark.parametrize("side", [15, 12, 11, 8, 1])
def test_positions_equal_those_of_transformers(checkpoint, hf, side):
    embeddings = hf.model.vision_model.embeddings
    with torch.inference_mode():
        expected = embeddings.interpolate_pos_encoding(torch.zeros(1, side**2 + 1, 384), side * 14, side * 14)
    positions = checkpoint.with_image_scale(side / 16).load_weights()[POSITIONS]
    assert positions.shape == (1, side**2 + 1, 384)
    assert torch.equal(positions, expected)
    assert not torch.equal(positions[:, 1 : side + 1], embeddings.position_embedding[:, 1 : side + 1])


def test_at_full_scale_nothing_changes(checkpoint):
    assert checkpoint.with_image_scale(1.0) is checkpoint
    assert checkpoint.with_image_scale(0.5).with_image_scale(0.75) == checkpoint.with_image_scale(0.75)


@pytest.fixture(scope="module")
def ids_of_smaller_images(hf, sample_images):
    """Return the token ids that transformers generates for images of 168 px."""
    expected = []
    for image in sample_images[:12]:
        pixels = hf._images(read_image(image.path), size={"height": 168, "width": 168}, return_tensors="pt").pixel_values
        with torch.inference_mode():
            ids = hf.model.generate(pixel_values=pixels, interpolate_pos_encoding=True, do_sample=False, num_beams=1, max_length=20)
        expected.append(tuple(hf._trim(ids[0].tolist())))
    return expected


@pytest.mark.parametrize("position", [0, 1], ids=["ort", "torch"])
def test_captions_equal_those_of_transformers_on_the_smaller_image(small_artifacts, hf, ids_of_smaller_images, sample_images, position):
    captions = load(small_artifacts[position]).caption([image.path for image in sample_images[:12]])
    assert [caption.token_ids for caption in captions] == ids_of_smaller_images
    assert ids_of_smaller_images != [caption.token_ids for caption in hf.caption([image.path for image in sample_images[:12]])]


def test_the_reference_of_the_gate_has_the_full_image_size(small_artifacts, hf, sample_images):
    paths, captions = [image.path for image in sample_images[:6]], [image.texts for image in sample_images[:6]]
    before, after = (np.concatenate(model.score(paths, captions=captions)).sum() for model in (hf, load(small_artifacts[0])))
    tokens = sum(len(hf.text_ids(caption)) - 1 for references in captions for caption in references)
    drift = open_artifact(small_artifacts[0]).manifest.gate["drift_nat_per_token"]
    assert drift == pytest.approx((before - after) / tokens, abs=1e-4)
    assert abs(drift) > 1e-3


def test_manifests_of_approximate_artifacts_say_so(tiny_artifacts, small_artifacts):
    marked = {name: open_artifact(path).manifest.target.approximate for name, path in tiny_artifacts.items()}
    assert [name for name, approximate in marked.items() if approximate] == ["onnx-int8-fast"]
    manifest = open_artifact(small_artifacts[0]).manifest
    assert (manifest.target.approximate, manifest.recipe["image_scale"]) == (True, 0.75)
    assert (manifest.model.image_px, manifest.image.height_px, manifest.image.width_px) == (168, 168, 168)


def test_shipped_recipes_that_are_approximate_say_so():
    for recipe in RECIPES:
        assert recipe.approximate == recipe.why.startswith("Approximate") == (recipe.image_scale != 1)


@pytest.mark.parametrize("scale", [0.0, -0.5, 1.5, float("nan")])
def test_a_scale_outside_0_to_1_is_refused(scale):
    with pytest.raises(ValueError, match="image_scale"):
        replace(SMALL, image_scale=scale)


def test_an_approximate_recipe_cannot_be_token_exact():
    with pytest.raises(ValueError, match="drift_limit_nat"):
        replace(SMALL, drift_limit_nat=None)


def test_an_approximate_artifact_is_used_with_a_warning_if_the_folder_has_no_other(tiny_artifacts, tmp_path, caplog):
    shutil.copytree(tiny_artifacts["onnx-int8-fast"], tmp_path / "fast")
    with caplog.at_level(logging.INFO, logger="runtimes.loading"):
        assert load(tmp_path, device="cpu").manifest.target.approximate
    why = "approximate (INT8), as there is nothing else that this machine can run"
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [("WARNING", f"using fast: {why}")]
