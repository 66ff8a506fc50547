"""Smoothing, sensitivity, retries of the gate and tuning of a model that answers questions, each from start to end."""

import shutil
from dataclasses import replace

import pytest
import safetensors.torch
import torch

from exporters.calibration.activations import SHIPPED, Calibration
from exporters.calibration.smoothing import smoothed
from exporters.checkpoint.checkpoint import open_checkpoint
from exporters.emulation.drift import Emulation
from exporters.export import export
from exporters.gate.labelled_image import LabelledImage
from exporters.mixed_precision.budget import Budget
from exporters.mixed_precision.journal import DriftJournal
from exporters.recipe import DEFAULT, Component, Recipe
from exporters.recipes import find_recipe
from exporters.sensitivity import measure_sensitivity
from exporters.tune import paths_of, tune
from runtimes.artifact.folder import open_artifact
from runtimes.errors import GateError
from runtimes.loading import load

NORM, FC1 = "vision_model.encoder.layers.0.layer_norm2", "vision_model.encoder.layers.0.mlp.fc1"
QUESTION_LAYER = "text_encoder.encoder.layer.0.attention.self.qkv"
INT8 = Component(weights="qint8", per_channel=True)
SMOOTH = replace(INT8, smooth=0.5)


@pytest.fixture(scope="module")
def checkpoint(tiny_vqa_checkpoint):
    return open_checkpoint(str(tiny_vqa_checkpoint))


@pytest.fixture(scope="module")
def own_answers(tiny_vqa_artifacts, asked_images):
    """The drawn images with the answers of the model itself: any change makes them less likely."""
    with load(tiny_vqa_artifacts["pytorch-fp32"], task="vqa") as answerer:
        answers = answerer.answer([image.path for image in asked_images], [image.question for image in asked_images])
    return [LabelledImage(image.path, (answer.text,), image.question) for image, answer in zip(asked_images, answers, strict=True)]


def test_smoothing_changes_no_answer_in_fp32(checkpoint):
    """Scales are folded in all three components, and calibration asks questions of its own."""
    recipe = Recipe(name="smooth", runtime="ort", why="x", components={DEFAULT: SMOOTH}, drift_limit_nat=1.0)
    scaled = smoothed(checkpoint, recipe, Calibration(SHIPPED[:4]), 1)
    assert {name.split(".")[0] for name, alpha in scaled.smoothing.alphas.items() if alpha} == {
        "vision_model",
        "text_encoder",
        "text_decoder",
    }
    pixels, ids = torch.rand(2, 3, 32, 32), torch.tensor([[2, 5, 9, 3], [2, 7, 7, 3]])
    logits = []
    for each in (checkpoint, scaled):
        model = each.load_model()
        with torch.inference_mode():
            cross = model.cross(pixels, question_ids=ids)
            past = [torch.zeros(2, model.shape.text_heads, 0, model.shape.head_width)] * len(cross)
            logits.append(model.decode(torch.tensor([[62, 5, 17], [62, 8, 8]]), torch.arange(3), past, cross)[0])
    assert torch.allclose(*logits, atol=1e-4)
    assert logits[0].std() > 0.1


def test_images_without_a_question_get_one(checkpoint, asked_images):
    emulation = Emulation(checkpoint, checkpoint, "ort", threads=1)
    bare = emulation.examples([LabelledImage(image.path, ()) for image in asked_images[:7]])
    questions = [tuple(example.inputs["question_ids"][0].tolist()) for example in bare]
    assert questions[0] == questions[6], "there are six"
    assert len(set(questions)) == 6
    assert all(example.captions for example in bare)


@pytest.mark.full
def test_the_sensitivity_of_every_layer_is_measured(checkpoint, asked_images, tmp_path):
    recipe = Recipe(name="plain", runtime="ort", why="x", components={DEFAULT: INT8}, drift_limit_nat=1.0)
    journal = DriftJournal(tmp_path / "layers.jsonl", {})
    calibration = Calibration([image.path for image in asked_images[:4]])
    result = measure_sensitivity(checkpoint, recipe, asked_images[:4], journal, calibration=calibration, threads=1)
    assert {each.component for each in result.layers} == {"encoder", "question", "decoder"}
    by_name = {each.layer: each for each in result.layers}
    assert by_name[QUESTION_LAYER].only.nat != 0
    assert by_name[QUESTION_LAYER].estimate > 0
    # Drifts of single layers add up roughly: an emulation that left out questions or answers would not have that of the whole recipe.
    emulated = Emulation(checkpoint, checkpoint, "ort", threads=1)
    assert result.whole.nat == pytest.approx(
        emulated.drift({name: recipe.component("encoder").layer(name) for name in by_name}, emulated.examples(asked_images[:4])).nat,
        abs=1e-6,
    )


@pytest.mark.full
@pytest.mark.parametrize("name", ["onnx-int8", "pytorch-int8"])
def test_a_layer_with_an_outlier_gets_another_format_and_the_gate_passes(tiny_vqa_checkpoint, own_answers, tmp_path, name):
    path = shutil.copytree(tiny_vqa_checkpoint, tmp_path / "outlier")
    weights = safetensors.torch.load_file(path / "model.safetensors")
    for part in ("weight", "bias"):
        weights[f"{NORM}.{part}"][0] *= 1000
    weights[f"{FC1}.weight"][:, 0] /= 1000
    safetensors.torch.save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    checkpoint, shipped = open_checkpoint(str(path)), find_recipe(name)
    recipe = replace(shipped, components={key: replace(part, smooth=None) for key, part in shipped.components.items()})
    (written,) = export(checkpoint, [recipe], tmp_path / "written", own_answers, on_gate_failure="write")
    strict = replace(recipe, drift_limit_nat=0.25 * open_artifact(written).manifest.gate["drift_high"])
    with pytest.raises(GateError):
        list(export(checkpoint, [strict], tmp_path / "failed", own_answers, on_gate_failure="fail"))
    (retried,) = export(checkpoint, [strict], tmp_path / "retried", own_answers)
    gate = open_artifact(retried).manifest.gate
    assert gate["passed"]
    assert FC1 in gate["exceptions"]


@pytest.mark.full
def test_formats_within_a_budget_are_found_and_confirmed(checkpoint, own_answers, tmp_path):
    tuned = tune(
        checkpoint,
        find_recipe("onnx-int8"),
        Budget(drift_nat=0.02),
        "size",
        [LabelledImage(image.path, ()) for image in own_answers[4:8]],
        own_answers[8:],
        DriftJournal(tmp_path / "search.jsonl", {}),
        calibration=Calibration(paths_of(own_answers[:4])),
        threads=1,
    )
    assert tuned.verdict in ("met", "met on average")
    assert set(tuned.formats) == {"encoder", "question", "decoder"}
    (path,) = export(checkpoint, [tuned.recipe], tmp_path / "out", own_answers[8:], on_gate_failure="write")
    assert open_artifact(path).manifest.gate["drift_nat_per_token"] == tuned.drift.nat
