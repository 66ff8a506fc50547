"""Comparison of captions: marked words, order of groups, and distances from the baseline."""

from dataclasses import replace

import pytest

from tests.paths import GOLDEN
from toolkit.records.record_file import read_records
from toolkit.report.captions import base_case, comparisons, difference

RECORD = read_records(GOLDEN / "records.jsonl")[0]


def captioned(case, *captions, errors=()):
    quality = tuple(
        replace(image, file=f"{number}.jpg", caption=caption, error="broken" if number in errors else None)
        for number, (image, caption) in enumerate(zip(RECORD.quality, captions, strict=False))
    )
    return replace(RECORD, case=case, quality=quality)


@pytest.mark.parametrize(
    ("words", "base", "spans", "distance"),
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
def test_word_diff_and_distance(words, base, spans, distance):
    diff, share = difference(words.split(), base.split())
    assert list(diff) == spans
    assert share == pytest.approx(distance)


def test_cases_with_the_same_caption_are_grouped_and_the_baseline_is_first():
    (comparison,) = comparisons(
        [
            captioned("onnx-int4", "two dogs"),
            captioned("hf-fp32", "a cat"),
            captioned("onnx-fp32", "a cat"),
            captioned("onnx-int8", "a big cat"),
        ]
    )
    assert [group.cases for group in comparison.groups] == [("hf-fp32", "onnx-fp32"), ("onnx-int8",), ("onnx-int4",)]
    assert comparison.distances == {"onnx-fp32": 0, "onnx-int8": pytest.approx(1 / 5), "onnx-int4": 1}
    assert comparison.disagreement == pytest.approx(0.4)


def test_images_are_sorted_by_disagreement_and_keep_their_index():
    compared = comparisons([captioned("hf-fp32", "a", "b", "c d"), captioned("onnx-int8", "a", "x", "c e")])
    assert [(image.file, image.index, image.disagreement) for image in compared] == [
        ("1.jpg", 1, 1.0),
        ("2.jpg", 2, 0.5),
        ("0.jpg", 0, 0.0),
    ]


def test_a_failure_has_the_largest_distance():
    (comparison,) = comparisons([captioned("hf-fp32", "a"), captioned("onnx-int8", "", errors=(0,))])
    assert comparison.distances == {"onnx-int8": 1}
    assert [group.error for group in comparison.groups] == [None, "broken"]


def test_without_a_baseline_captions_are_compared_with_the_first_case():
    records = [captioned("onnx-fp32", "a"), captioned("onnx-int8", "b")]
    assert base_case(records) == "onnx-fp32"
    assert comparisons(records)[0].distances == {"onnx-int8": 1}
    assert (base_case([replace(RECORD, quality=())]), comparisons([replace(RECORD, quality=())])) == (None, [])
