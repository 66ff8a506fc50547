"""ROUGE-L compared with stored values of pycocoevalcap and with values computed by hand."""

import json
from pathlib import Path

import pytest

from toolkit.metrics.rouge import common_words, rouge_l

IMAGES = json.loads(Path(__file__).with_name("pycocoevalcap.json").read_text(encoding="utf-8"))["images"]


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image["hypothesis"])
def test_equals_coco(image):
    score = rouge_l(image["hypothesis"].split(), [reference.split() for reference in image["references"]])
    assert score == pytest.approx(image["rouge_l"], abs=1e-9)


def test_oracle_is_not_trivial():
    scores = {round(image["rouge_l"], 6) for image in IMAGES}
    assert len(IMAGES) >= 12
    assert len(scores) >= 10
    assert all(len(image["references"]) == 5 for image in IMAGES)


def test_by_hand():
    # "a dog": 2 of 3 words, 2 of 4 words. F = 2.44 * P * R / (R + 1.44 * P), P = 2/3, R = 1/2
    assert rouge_l(["a", "brown", "dog"], [["a", "dog", "runs", "fast"]]) == pytest.approx(2.44 * (1 / 3) / (0.5 + 0.96), abs=1e-12)


def test_precision_and_recall_may_come_from_two_references():
    # against "a dog" R = 2/2 and P = 2/4; against "big brown dog now here" P = 3/4 and R = 3/5
    score = rouge_l(["a", "big", "brown", "dog"], [["a", "dog"], ["big", "brown", "dog", "now", "here"]])
    assert score == pytest.approx(2.44 * 0.75 / (1 + 1.44 * 0.75), abs=1e-12)


def test_extreme_scores():
    assert rouge_l(["a", "dog"], [["a", "cat"], ["a", "dog"]]) == pytest.approx(1, abs=1e-12)
    assert rouge_l(["a", "dog"], [["two", "cats"]]) == 0
    assert rouge_l([], [["a", "dog"]]) == 0
    assert rouge_l(["a"], [[], ["a", "b"]]) == pytest.approx(2.44 * 0.5 / (0.5 + 1.44), abs=1e-12)


@pytest.mark.parametrize(
    ("left", "right", "length"),
    [("abcbdab", "bdcaba", 4), ("abc", "abc", 3), ("abc", "cba", 1), ("abc", "", 0), ("", "", 0), ("aaa", "aa", 2), ("xaybzc", "abc", 3)],
)
def test_common_words(left, right, length):
    assert common_words(list(left), list(right)) == length
    assert common_words(list(right), list(left)) == length
