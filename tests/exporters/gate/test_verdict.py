"""Verdicts, as a table of cases, and the number of images that an undecided case needs, by simulation."""

import math

import numpy as np
import pytest

from exporters.gate.drift import Drift, measure_drift
from exporters.gate.verdict import CANNOT_TELL, EXACT_LIMIT_NAT, LOSS, MIN_IMAGES, NO_LOSS, comparisons, judge


def drift(low, high, images=83, nat=None, spread=0.05):
    return Drift(nat=(low + high) / 2 if nat is None else nat, low=low, high=high, spread=spread, images=images)


INFINITE = (-math.inf, math.inf)


@pytest.mark.parametrize(
    ("low", "high", "limit", "verdict"),
    [
        (-0.004, 0.001, 0.02, NO_LOSS),
        (-0.010, -0.002, 0.02, NO_LOSS),
        (0.004, 0.019, 0.02, NO_LOSS),  # a drift that is clearly above 0 and clearly below the limit
        (0.004, 0.020, 0.02, LOSS),  # not below the limit
        (0.021, 0.030, 0.02, LOSS),
        (-0.001, 0.020, 0.02, CANNOT_TELL),
        (0.0, 0.030, 0.02, CANNOT_TELL),
        (*INFINITE, 0.02, CANNOT_TELL),
        (-0.0005, 0.0009, None, NO_LOSS),
        (-0.0005, 0.0012, None, CANNOT_TELL),
        (0.0001, 0.0012, None, LOSS),
        (math.nan, math.nan, 0.02, CANNOT_TELL),
    ],
)
def test_the_interval_and_the_limit_decide(low, high, limit, verdict):
    assert judge(drift(low, high, nat=0.0), limit).verdict == verdict
    assert judge(drift(low, high, nat=0.0, images=MIN_IMAGES - 1), limit).verdict is None


def test_the_words():
    assert judge(drift(-0.1, 0.001), 0.02).text == "no loss"
    assert judge(drift(0.01, 0.1), 0.02).text == "loss"
    assert judge(drift(-0.1, 0.1, images=12), 0.02).text == "no verdict (12 of 20 images)"
    assert judge(drift(-0.1, 0.1, spread=0.05, nat=0.0), 0.02).text == "cannot tell (about 84 images would)", "more than there are"
    assert judge(drift(*INFINITE, nat=0.0, spread=math.nan), 0.02).text == "cannot tell"
    assert "8 comparisons" in comparisons(8)
    assert "0.2 wrong verdicts" in comparisons(8)


@pytest.mark.parametrize(
    ("spread", "nat", "limit", "images"),
    [
        # (3.24 * spread / margin)^2, the published sample sizes of drift for INT8 and INT4, rounded up to two digits
        (0.047, 0.0, 0.01, 240),
        (0.047, 0.005, 0.01, 930),
        (0.047, -0.02, 0.01, 240),
        (0.077, 0.02, 0.1, 84),
        (0.05, 0.03, 0.02, 84),  # above the limit: the distance to 0 is 0.03
        (0.2, 0.03, 0.02, 470),
        (0.05, 0.0099999, 0.01, None),
    ],
)
def test_the_number_of_images_that_are_needed(spread, nat, limit, images):
    judgement = judge(drift(-1, 1, spread=spread, nat=nat), limit)
    assert (judgement.verdict, judgement.images_needed) == (CANNOT_TELL, images)


def test_so_many_images_decide_in_nine_of_ten_sets():
    """Draw images with a true drift of 0.005 nat/token and a spread of 0.05, as many as are named for a limit of 0.02."""
    random = np.random.default_rng(1)
    needed = judge(drift(-1, 1, spread=0.05, nat=0.005, images=30), 0.02).images_needed
    verdicts = [judge(measure_drift(random.normal(0.3, 3.0, needed), np.full(needed, 60.0)), 0.02).verdict for _ in range(80)]
    assert 0.8 <= verdicts.count(NO_LOSS) / len(verdicts) < 1


def test_a_recipe_without_a_limit_allows_rounding():
    rounding = measure_drift(np.random.default_rng(2).normal(0, 1e-4, 83), np.full(83, 60.0))
    assert judge(rounding, None).verdict == NO_LOSS
    assert rounding.high < EXACT_LIMIT_NAT / 100
