"""Test the retries of an export whose gate fails: exceptions for the layers that need them, and the error if none help."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch

from exporters.checkpoint.checkpoint import open_checkpoint
from exporters.emulation.drift import Emulation
from exporters.export import export
from exporters.gate.labelled_image import LabelledImage
from exporters.mixed_precision.exceptions import REMAINING, Exceptions, smallest
from exporters.mixed_precision.local_error import LocalErrors
from exporters.recipes import find_recipe
from runtimes.artifact.folder import open_artifact
from runtimes.errors import GateError
from runtimes.loading import load

NORM, FC1 = "vision_model.encoder.layers.0.layer_norm2", "vision_model.encoder.layers.0.mlp.fc1"
SCALE = 1000


@pytest.fixture(scope="module")
def outlier_checkpoint(tiny_checkpoint, tmp_path_factory) -> Path:
    """The tiny checkpoint with one channel in front of one layer 1000 times as large, and the weights behind it as much smaller."""
    path = shutil.copytree(tiny_checkpoint, tmp_path_factory.mktemp("outlier") / "outlier")
    weights = safetensors.torch.load_file(path / "model.safetensors")
    for name in ("weight", "bias"):
        weights[f"{NORM}.{name}"][0] *= SCALE
    weights[f"{FC1}.weight"][:, 0] /= SCALE
    safetensors.torch.save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    return path


@pytest.mark.full
@pytest.mark.parametrize("name", ["onnx-int8", "pytorch-int8"])
def test_the_layer_with_the_outlier_gets_another_format_and_the_gate_passes(
    outlier_checkpoint, tiny_artifacts, drawn_images, tmp_path, name
):
    """The recipe does not smooth the outlier. The captions are the model's own: any change makes them less likely."""
    checkpoint, shipped = open_checkpoint(str(outlier_checkpoint)), find_recipe(name)
    recipe = replace(shipped, components={key: replace(part, smooth=None) for key, part in shipped.components.items()})
    own = load(tiny_artifacts["pytorch-fp32"]).caption([image.path for image in drawn_images])
    images = [LabelledImage(image.path, (caption.text,)) for image, caption in zip(drawn_images, own, strict=True)]
    (path,) = export(checkpoint, [recipe], tmp_path / "written", images, on_gate_failure="write")
    failing = open_artifact(path).manifest.gate
    strict = replace(recipe, drift_limit_nat=0.25 * failing["drift_high"])
    with pytest.raises(GateError):
        list(export(checkpoint, [strict], tmp_path / "failed", images, on_gate_failure="fail"))
    (path,) = export(checkpoint, [strict], tmp_path / "retried", images)
    manifest = open_artifact(path).manifest
    assert path.name == f"outlier-{name}"
    assert manifest.gate["passed"]
    assert FC1 in manifest.gate["exceptions"]
    assert len(manifest.gate["exceptions"]) < sum(map(len, checkpoint.layers().values())) // 2
    assert set(manifest.recipe["components"]["encoder"]["layers"]) >= {FC1}
    assert load(path, device="cpu").caption([drawn_images[0].path])[0].error is None
    assert sorted(file.name for file in (tmp_path / "retried").iterdir()) == [f"outlier-{name}"]


@pytest.mark.full
def test_an_exception_keeps_little_of_the_limit_however_large_the_error_of_the_layer_was(outlier_checkpoint, drawn_images):
    checkpoint, shipped = open_checkpoint(str(outlier_checkpoint)), find_recipe("onnx-int8")
    recipe = replace(shipped, components={key: replace(part, smooth=None) for key, part in shipped.components.items()})
    emulation = Emulation(checkpoint, checkpoint, recipe.runtime, threads=1)
    errors = LocalErrors(emulation, emulation.examples([LabelledImage(image.path, ()) for image in drawn_images[:4]]))
    exceptions = Exceptions(emulation, errors, recipe)
    layer_format = exceptions.first(1)[FC1]
    allowed = REMAINING * recipe.drift_limit_nat / len(exceptions)
    assert errors.drift(FC1, layer_format) <= allowed < REMAINING * errors.drift(FC1, recipe.component("encoder").layer(FC1))


@pytest.mark.full
def test_a_recipe_that_fails_with_every_exception_is_an_error_that_lists_the_tries(tiny_checkpoint, drawn_images, tmp_path):
    impossible = replace(find_recipe("onnx-int8"), drift_limit_nat=-1.0)
    with pytest.raises(GateError) as caught:
        list(export(open_checkpoint(str(tiny_checkpoint)), [impossible], tmp_path, drawn_images[:2]))
    assert "drift is " in str(caught.value)
    assert "Tried again with other formats for 27 layers: " in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("first", range(1, 12))
def test_the_smallest_number_that_passes_is_found_with_few_evaluations(first):
    evaluated = []

    def passes(number: int) -> bool:
        evaluated.append(number)
        return number >= first

    assert smallest(1, 11, passes) == min(first, 11)
    assert len(evaluated) <= 4
