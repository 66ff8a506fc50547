"""Side by side: which words are marked, in which order, and how far captions are from the baseline's."""

from dataclasses import replace

import pytest

from tests.paths import GOLDEN
from toolkit.records.record import read_records
from toolkit.report.captions import base_case, comparisons, difference

RECORD = read_records(GOLDEN / "records.jsonl")[0]


def said(case, *captions, errors=()):
    quality = tuple(
        replace(image, file=f"{number}.jpg", caption=caption, error="broken" if number in errors else None)
        for number, (image, caption) in enumerate(zip(RECORD.quality, captions, strict=False))
    )
    return replace(RECORD, case=case, quality=quality)


@pytest.mark.parametrize(
    ("words", "base", "runs", "distance"),
    [
        ("a cat", "a cat", [("a cat", "same")], 0),
        ("a big cat", "a cat", [("a", "same"), ("big", "new"), ("cat", "same")], 1 / 5),
        ("a cat", "a big cat", [("a", "same"), ("big", "gone"), ("cat", "same")], 1 / 5),
        ("a wild dog", "a cat", [("a", "same"), ("wild dog", "new")], 3 / 5),
        ("two dogs", "a cat", [("two dogs", "new")], 1),
        ("", "a cat", [("a cat", "gone")], 1),
        ("", "", [], 0),
    ],
)
def test_words_that_the_other_does_not_have_there(words, base, runs, distance):
    marked, far = difference(words.split(), base.split())
    assert list(marked) == runs
    assert far == pytest.approx(distance)


def test_cases_that_said_the_same_stand_together_and_the_baseline_first():
    (one,) = comparisons(
        [said("onnx-int4", "two dogs"), said("hf-fp32", "a cat"), said("onnx-fp32", "a cat"), said("onnx-int8", "a big cat")]
    )
    assert [saying.cases for saying in one.sayings] == [("hf-fp32", "onnx-fp32"), ("onnx-int8",), ("onnx-int4",)]
    assert one.distances == {"onnx-fp32": 0, "onnx-int8": pytest.approx(1 / 5), "onnx-int4": 1}
    assert one.disagreement == pytest.approx(0.4)


def test_the_most_disagreement_first_and_places_stay_those_of_the_dataset():
    found = comparisons([said("hf-fp32", "a", "b", "c d"), said("onnx-int8", "a", "x", "c e")])
    assert [(one.file, one.place, one.disagreement) for one in found] == [("1.jpg", 1, 1.0), ("2.jpg", 2, 0.5), ("0.jpg", 0, 0.0)]


def test_a_failure_is_as_far_as_can_be():
    (one,) = comparisons([said("hf-fp32", "a"), said("onnx-int8", "", errors=(0,))])
    assert one.distances == {"onnx-int8": 1}
    assert [saying.error for saying in one.sayings] == [None, "broken"]


def test_without_a_baseline_the_first_case_stands_for_it():
    records = [said("onnx-fp32", "a"), said("onnx-int8", "b")]
    assert base_case(records) == "onnx-fp32"
    assert comparisons(records)[0].distances == {"onnx-int8": 1}
    assert (base_case([replace(RECORD, quality=())]), comparisons([replace(RECORD, quality=())])) == (None, [])
