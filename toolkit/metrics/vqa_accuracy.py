"""The accuracy of answers as VQAv2 defines it (Antol et al. 2015, section 3; Goyal et al. 2017).

An answer is right to a degree: the number of people who gave it, divided by 3, at most 1. Each of the ten people is left out once, and the
accuracy is the mean over the ten. Answers are normalized as in the evaluation code of the data set.
"""

import re
from collections.abc import Sequence
from statistics import fmean

PEOPLE = 3
"""An answer that this many people gave is right."""

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
DIGIT_COMMA_DIGIT = re.compile(r"\d,\d")
PERIOD = re.compile(r"\.(?!\d)")

NUMBERS = {"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5"}
NUMBERS |= {"six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10"}
ARTICLES = {"a", "an", "the"}

_CONTRACTIONS = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's how'd how'll how's
isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've
should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll someone's something'd
something'd've something'll that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've
weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't
would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
CONTRACTIONS = {
    **{word[:at] + word[at + 1 :]: word for word in _CONTRACTIONS.split() for at, letter in enumerate(word) if letter == "'"},
    "somebody'd": "somebodyd",
}
"""A contraction with one apostrophe left out → the contraction. The last entry is as in the evaluation code."""


def vqa_accuracy(answer: str, answers: Sequence[str]) -> float:
    """Return the accuracy of an answer, 0 to 1.

    Args:
        answer: The answer of a model.
        answers: The answers of people, at least one; VQAv2 has ten.
    """
    given, expected = _plain(answer), [_plain(each) for each in answers]
    if len(set(expected)) > 1:  # the evaluation code normalizes only then
        given, expected = normalized(given), [normalized(each) for each in expected]
    same = [each.lower() == given.lower() for each in expected]
    return fmean(min(1.0, (sum(same) - own) / PEOPLE) for own in same)


def normalized(answer: str) -> str:
    """Return an answer without punctuation and articles, with numbers as digits and apostrophes in contractions."""
    text, joined = answer, DIGIT_COMMA_DIGIT.search(answer) is not None
    for mark in PUNCTUATION:
        beside_space = f"{mark} " in answer or f" {mark}" in answer
        text = text.replace(mark, "" if joined or beside_space else " ")
    words = (NUMBERS.get(word, word) for word in PERIOD.sub("", text).lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def _plain(answer: str) -> str:
    return answer.replace("\n", " ").replace("\t", " ").strip()
