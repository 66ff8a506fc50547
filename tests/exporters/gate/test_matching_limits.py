"""The verdict on a matcher: intervals of its changes and shares of ranks against the limits of its precision."""

import pytest

from exporters.gate.matching_limits import APPROXIMATE, EXACT, LIMITS, Measured, judge_matching, limits_of
from exporters.gate.verdict import CANNOT_TELL, LOSS, NO_LOSS

GOOD = {1: Measured(value=0.95, low=0.8, high=1.0), 5: Measured(value=1.0, low=0.9, high=1.0)}
SMALL = Measured(value=0.005, low=0.003, high=0.008)


@pytest.mark.parametrize(
    ("change", "agreement", "verdict"),
    [
        (SMALL, GOOD, NO_LOSS),
        (Measured(value=0.018, low=0.015, high=0.021), GOOD, CANNOT_TELL),
        (Measured(value=0.03, low=0.021, high=0.04), GOOD, LOSS),
        (SMALL, GOOD | {1: Measured(value=0.84, low=0.7, high=0.92)}, CANNOT_TELL),
        (SMALL, GOOD | {1: Measured(value=0.5, low=0.3, high=0.84)}, LOSS),
        (SMALL, GOOD | {5: Measured(value=0.9, low=0.8, high=0.97)}, LOSS),
    ],
)
def test_the_verdict_of_int8(change, agreement, verdict):
    assert judge_matching([SMALL, change], agreement, LIMITS["int8"], 20).verdict == verdict


def test_few_images_have_no_verdict():
    judgement = judge_matching([SMALL, SMALL], GOOD, LIMITS["int8"], 19)
    assert (judgement.verdict, judgement.text) == (None, "no verdict (19 of 20 images)")


def test_limits_of_a_recipe():
    assert limits_of("int4", approximate=False) is LIMITS["int4"]
    assert limits_of("int8", approximate=True) is APPROXIMATE
    for precision in ("fp32", None):
        assert limits_of(precision, approximate=None).score == EXACT
    rounded = Measured(value=EXACT / 10, low=EXACT / 20, high=EXACT / 5)
    assert (
        judge_matching([rounded], GOOD | {1: Measured(value=0.9, low=0.7, high=1.0)}, limits_of("fp32", approximate=False), 30).verdict
        == NO_LOSS
    )
