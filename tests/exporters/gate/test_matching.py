"""The gate of matchers refuses other scores and other rankings than transformers'."""

from dataclasses import replace

import numpy as np
import pytest

import runtimes
from exporters.families.blip_matching.reference import run_reference
from exporters.gate.findings import card_text, findings_line
from exporters.gate.matching import evaluate
from exporters.gate.matching_limits import LIMITS
from exporters.recipes import find_recipe
from runtimes.artifact.generation import GenerationConfig
from runtimes.errors import GateError


@pytest.fixture(scope="module")
def expected(tiny_matcher, drawn_images):
    return run_reference(tiny_matcher, drawn_images, GenerationConfig(), 1, tied=True)


@pytest.fixture(scope="module")
def matcher(matcher_artifacts):
    return runtimes.load(matcher_artifacts["onnx-fp32"], task="matching", threads=1)


def moved(rows, by):
    return tuple(tuple(value + by for value in row) for row in rows)


def test_an_fp32_artifact_has_the_scores_and_ranks_of_transformers(matcher, drawn_images, expected):
    findings = evaluate(matcher, find_recipe("onnx-fp32"), drawn_images, expected, "fail")
    assert findings["passed"]
    assert findings["texts"] == sum(len(image.texts) for image in drawn_images)
    assert max(findings["similarity_change_max"], findings["probability_change_max"]) < 1e-5
    assert findings["agreement_at_1"] == findings["agreement_at_5"] == 1
    assert findings["recall_at_1"] == findings["reference_recall_at_1"]
    assert findings_line("matching", findings).startswith("gate passed")
    assert card_text("matching", findings).startswith("passed")


@pytest.mark.parametrize(
    ("scores", "by", "recipe", "named"),
    [
        ("similarities", 2e-4, "onnx-fp32", "similarity"),
        ("probabilities", -2e-4, "pytorch-fp32", "probability"),
        ("similarities", 0.021, "onnx-int8", "similarity"),
        ("probabilities", 0.051, "onnx-int4", "probability"),
    ],
)
def test_a_change_of_scores_above_the_limit_is_refused(scores, by, recipe, named, matcher, drawn_images, expected):
    other = replace(expected, **{scores: moved(getattr(expected, scores), by)})
    with pytest.raises(GateError):
        evaluate(matcher, find_recipe(recipe), drawn_images, other, "fail")
    written = evaluate(matcher, find_recipe(recipe), drawn_images, other, "write")
    assert not written["passed"]
    assert named in written["problem"]
    assert "gate not passed" in findings_line("matching", written)


def test_a_change_within_the_limit_passes(matcher, drawn_images, expected):
    other = replace(expected, similarities=moved(expected.similarities, 0.019))
    assert evaluate(matcher, find_recipe("onnx-int8"), drawn_images, other, "fail")["passed"]


def test_another_ranking_is_refused(matcher, drawn_images, expected):
    """The scores of each text change by little, and another image becomes the best."""
    rows = np.array(expected.similarities)
    second = rows.argsort(axis=0)[-8]
    rows[second, np.arange(rows.shape[1])] = rows.max(axis=0) + 1e-3
    other = replace(expected, similarities=tuple(map(tuple, rows.tolist())))
    findings = evaluate(matcher, find_recipe("onnx-int4"), drawn_images, other, "write")
    assert findings["similarity_change"] < LIMITS["int4"].score
    assert findings["agreement_at_1"] == findings["agreement_at_5"] == 0
    assert not findings["passed"]


def test_a_reference_belongs_to_images_with_these_numbers_of_captions(expected, drawn_images):
    assert expected.fits(drawn_images)
    assert not expected.fits(drawn_images[:-1])
    assert not replace(expected, probabilities=expected.probabilities[:-1]).fits(drawn_images)
    assert not replace(expected, similarities=tuple(row[1:] for row in expected.similarities)).fits(drawn_images)
