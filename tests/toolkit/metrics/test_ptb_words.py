"""The tokenizer compared with stored output of COCO's Java tokenizer (pycocoevalcap.json); known differences are listed."""

import json
from pathlib import Path

import pytest

from toolkit.metrics.ptb_words import words

ORACLE = json.loads(Path(__file__).with_name("pycocoevalcap.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", ORACLE["tokens"], ids=lambda case: case["caption"])
def test_equals_coco(case):
    assert words(case["caption"]) == case["ptb"].split(" ") * bool(case["ptb"])


EXPECTED = {
    "A man (wearing a hat) [and gloves].": "a man wearing a hat and gloves",
    "A cat and a dog!!": "a cat and a dog",
    "a cup?!": "a cup",
    "'Tis the season": "tis the season",
    "rock 'n' roll": "rock n roll",
    "Y'all come": "y'all come",
    "Hello @home": "hello @ home",
    "http://www.flickr.com site": "http / / www.flickr.com site",
    "a .5 mm pen": "a 5 mm pen",
    "no. 5 train": "no 5 train",
    "a young player getting ready to bat.,": "a young player getting ready to bat",
    "a ~ b": "a b",
    "about 3 1/2 inches": "about 3 1/2 inches",
}
"""Captions that are tokenized differently → words of this tokenizer."""


@pytest.mark.parametrize("case", ORACLE["tokens_different"], ids=lambda case: case["caption"])
def test_known_differences_to_coco(case):
    assert words(case["caption"]) == EXPECTED[case["caption"]].split()
    assert EXPECTED[case["caption"]] != case["ptb"]


def test_every_known_difference_is_in_the_oracle():
    assert EXPECTED.keys() == {case["caption"] for case in ORACLE["tokens_different"]}


@pytest.mark.parametrize("caption", ["", " ", "\n", "?!", "()", "-- ' \" ...", "\u2014"])
def test_punctuation_alone_has_no_words(caption):
    assert words(caption) == []


def test_line_breaks_separate_words():
    assert words("a dog\nruns\tfast \r\n") == ["a", "dog", "runs", "fast"]


def test_tokenizing_twice_changes_nothing():
    for case in ORACLE["tokens"]:
        once = words(case["caption"])
        assert words(" ".join(once)) == once


def test_a_long_caption_takes_linear_time():
    assert words("a." * 50_000 + "b") == ["a." * 50_000 + "b"]
    assert len(words("don't " * 20_000)) == 40_000
    assert words("'" * 100_000) == []
