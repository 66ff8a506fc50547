"""The accuracy of VQAv2, from its definition: worked examples, and the cases of its normalization."""

from fractions import Fraction
from itertools import combinations

import pytest

from toolkit.metrics.vqa_accuracy import normalized, vqa_accuracy


@pytest.mark.parametrize(("people", "expected"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_ten_people_of_whom_some_gave_the_answer(people, expected):
    """Three people: leaving out one of them leaves two (2/3), leaving out one of the others leaves three (1): (3 * 2/3 + 7) / 10 = 0.9."""
    assert vqa_accuracy("yes", ["yes"] * people + ["no"] * (10 - people)) == pytest.approx(expected)


@pytest.mark.parametrize("people", range(10))
def test_it_is_the_mean_over_all_subsets_of_nine(people):
    answers = ["2"] * people + ["two dogs"] * (10 - people)
    subsets = list(combinations(answers, 9))
    expected = sum(min(Fraction(1), Fraction(subset.count("2"), 3)) for subset in subsets) / len(subsets)
    assert vqa_accuracy("two", answers) == pytest.approx(float(expected))


@pytest.mark.parametrize(
    ("answer", "plain"),
    [
        ("Two", "2"),
        ("none", "0"),
        ("The red car.", "red car"),
        ("a man, an apple", "man apple"),
        ("dont know", "don't know"),
        ("couldnt've", "couldn't've"),
        ("t-shirt", "t shirt"),
        ("yes!", "yes"),
        ("$1,000", "$1000"),
        ("3.5 meters", "3.5 meters"),
        ("black/white", "black white"),
        ("(left)", "left"),
    ],
)
def test_answers_are_normalized(answer, plain):
    assert normalized(answer) == plain


def test_answers_are_not_normalized_if_all_people_agree():
    """As in the evaluation code of the data set, which then compares the texts without regard to case."""
    assert vqa_accuracy("two", ["2"] * 10) == 0.0
    assert vqa_accuracy("Yes", ["yes"] * 10) == 1.0
    assert vqa_accuracy("two", ["2"] * 9 + ["3"]) == 1.0
