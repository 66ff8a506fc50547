"""Test how often a 95 % interval contains the true value, with samples whose true mean or ratio is known.

The verdicts of the gate and of the report rely on these bounds. A percentile interval that is not widened misses them: of 10 values it has
the true mean on its wrong side twice as often as it should, and of 2 values ten times as often.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporters.gate.drift import drift_of_sums
from exporters.gate.intervals import MIN_PERCENTILE, interval, paired_change

SAMPLES, IMAGES, RESAMPLES = 400, 40, 300
NOMINAL = 0.95
SHORT, OVER = 0.06, 0.03
"""Allowed differences from the nominal coverage. Three standard errors of 400 samples are 0.033."""

DRAWS = {
    "normal": (lambda random: random.normal(1, 0.3, IMAGES), 1.0),
    "skewed": (lambda random: random.gamma(2, 0.5, IMAGES), 1.0),
    "mostly zero": (lambda random: random.binomial(1, 0.3, IMAGES).astype(np.float64), 0.3),
}


@pytest.mark.parametrize("draw", DRAWS)
def test_the_interval_of_a_mean_contains_the_true_mean(draw):
    sample, truth = DRAWS[draw]
    random = np.random.default_rng(17)
    ends = [interval(sample(random), resamples=RESAMPLES, seed=number) for number in range(SAMPLES)]
    covered = np.mean([low <= truth <= high for low, high in ends])
    assert NOMINAL - SHORT <= covered <= NOMINAL + OVER


def test_the_interval_of_a_change_contains_the_true_change():
    """The case's expected score is 0.9 of the baseline's, with independent noise for each image."""
    random = np.random.default_rng(18)
    covered = 0
    for number in range(SAMPLES):
        baseline = random.gamma(4, 0.25, IMAGES)
        result = paired_change(baseline * random.normal(0.9, 0.2, IMAGES), baseline, resamples=RESAMPLES, seed=number)
        covered += result.low <= -0.1 <= result.high
    assert NOMINAL - SHORT <= covered / SAMPLES <= NOMINAL + OVER


FALSE_LOSSES = 0.045
"""Allowed share of sets without a drift whose interval is above 0. Nominal is 0.025; three standard errors of 1000 sets are 0.015."""


@pytest.mark.parametrize("images", [2, 3, 5, 8, 10, 20])
def test_few_images_seldom_show_a_drift_that_is_none(images):
    """Decreases of log-probability with a mean of 0, and the number of tokens of five references."""
    random = np.random.default_rng(images)
    lows = []
    for number in range(1000):
        tokens = random.integers(45, 75, images)
        lows.append(interval(np.stack([random.normal(0, 0.6, images), tokens], axis=1), drift_of_sums, RESAMPLES, number)[0])
    assert np.mean(np.array(lows) > 0) <= FALSE_LOSSES


VALUES = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30).map(np.array)


@settings(derandomize=True, deadline=None, max_examples=50)
@given(VALUES, st.floats(0.01, 100), st.floats(-1e3, 1e3))
def test_an_interval_contains_the_mean_and_scales_with_the_values(values, scale, shift):
    low, high = interval(values, resamples=50)
    size = np.abs(values).max() * scale + abs(shift) + 1
    assert len(values) >= MIN_PERCENTILE or low - 1e-9 * size <= values.mean() <= high + 1e-9 * size
    assert len(values) < MIN_PERCENTILE or values.min() - 1e-9 * size <= low <= high <= values.max() + 1e-9 * size
    assert interval(values * scale + shift, resamples=50) == pytest.approx((low * scale + shift, high * scale + shift), abs=1e-9 * size)
