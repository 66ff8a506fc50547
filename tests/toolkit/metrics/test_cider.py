"""CIDEr-D compared with stored values of pycocoevalcap and with values computed by hand."""

import json
import math
from pathlib import Path

import pytest

from toolkit.metrics.cider import cider_d

IMAGES = json.loads(Path(__file__).with_name("pycocoevalcap.json").read_text(encoding="utf-8"))["images"]
HYPOTHESES = [image["hypothesis"].split() for image in IMAGES]
REFERENCES = [[reference.split() for reference in image["references"]] for image in IMAGES]
OTHER = ["q", "w", "e", "r", "t", "y"]
"""A second image without common words, so that the n-grams of the first have the weight log 2."""


def test_equals_coco():
    assert cider_d(HYPOTHESES, REFERENCES) == pytest.approx([image["cider_d"] for image in IMAGES], abs=1e-9)


def test_oracle_is_not_trivial():
    scores = [image["cider_d"] for image in IMAGES]
    assert min(scores) == 0
    assert max(scores) > 5
    assert len({round(score, 6) for score in scores}) >= 12


def test_the_reference_itself_scores_ten():
    assert cider_d([list("abcd"), OTHER], [[list("abcd")], [OTHER]]) == pytest.approx([10, 10], abs=1e-12)


def test_a_caption_too_short_for_four_words_loses_a_quarter_of_the_mean():
    assert cider_d([list("abc"), OTHER], [[list("abc")], [OTHER]])[0] == pytest.approx(7.5, abs=1e-12)


def test_by_hand():
    # "a b" and "a b c": cosine 2/(sqrt 2 * sqrt 3) for words, 1/(1 * sqrt 2) for bigrams, 0 for others; lengths differ by one bigram
    expected = 10 * (2 / math.sqrt(6) + 1 / math.sqrt(2)) / 4 * math.exp(-1 / 72)
    assert cider_d([list("ab"), OTHER], [[list("abc")], [OTHER]])[0] == pytest.approx(expected, abs=1e-12)


def test_repeated_words_are_clipped():
    # "a a": the weight 2 of a is clipped to the reference's 1: 1 * 1 / (2 * sqrt 2); the bigram is not in the reference; equal lengths
    assert cider_d([list("aa"), OTHER], [[list("ab")], [OTHER]])[0] == pytest.approx(10 / (2 * math.sqrt(2)) / 4, abs=1e-12)


def test_a_word_of_every_image_has_no_weight():
    with_article = cider_d([["the", "a"], ["the", "x"]], [[["the", "b"]], [["the", "y"]]])
    assert with_article == [0, 0]


def test_mean_over_references():
    first, second = cider_d([list("abcd"), OTHER], [[list("abcd"), list("wxyz")], [OTHER]])
    assert first == pytest.approx(5, abs=1e-12)
    assert second == pytest.approx(10, abs=1e-12)


def test_degenerate_sets():
    assert cider_d([], []) == []
    assert cider_d([["a", "dog"]], [[["a", "dog"]]]) == [0]
    assert cider_d([[], OTHER], [[["a"]], [OTHER]])[0] == 0


def test_numbers_of_captions_and_references_must_be_equal():
    with pytest.raises(ValueError, match="zip"):
        cider_d([["a"]], [[["a"]], [["b"]]])
