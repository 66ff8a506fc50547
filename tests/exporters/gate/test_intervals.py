"""Test the bootstrap against a plain loop over the same draws, and in cases with a known result."""

import numpy as np
import pytest

from exporters.gate import intervals
from exporters.gate.intervals import Change, expanded_tail, interval, paired_change, share_interval, student
from toolkit.metrics.bleu import bleu, bleu4_of_sums, count_matrix
from toolkit.metrics.ngrams import own_counter

RESAMPLES = 200
SEED = 7


def draws(images):
    return np.random.default_rng(SEED).integers(0, images, size=(RESAMPLES, images))


def outer(scores):
    """Return the order statistics at the tails of the expanded percentile interval, rounded outward.

    The tail of 37 images is 2.00 % and that of 31 is 1.89 %: positions 3.98 and 3.75 of 0..199, and the same from the other end.
    """
    ordered = sorted(scores)
    return ordered[3], ordered[196]


STUDENT = {1: 12.706, 2: 4.303, 6: 2.447, 7: 2.365, 20: 2.086, 21: 2.080, 25: 2.060, 29: 2.045, 40: 2.021, 60: 2.000, 120: 1.980}
"""Degrees of freedom → 97.5 % quantile of Student's t, from a printed table."""

TAILS = {5: 0.00095, 8: 0.0057, 10: 0.0086, 21: 0.0163, 83: 0.0227}
"""Images → tail of the expanded percentile interval, from Hesterberg 2015, table 1, and the same formula by hand."""


def test_quantiles_and_tails_are_those_of_printed_tables():
    assert {freedom: student(freedom) for freedom in STUDENT} == pytest.approx(STUDENT, abs=5e-4)
    assert {images: expanded_tail(images) for images in TAILS} == pytest.approx(TAILS, abs=1e-4)
    assert student(10**6) == pytest.approx(1.95996, abs=1e-5)


@pytest.mark.parametrize("images", [2, 3, 7])
def test_few_images_have_a_t_interval(images):
    """The standard error of the resamples is that of the mean, times sqrt((n - 1) / n)."""
    values = np.random.default_rng(images).normal(5, 2, images)
    half = STUDENT[images - 1] * values.std(ddof=1) / np.sqrt(images)
    low, high = interval(values, resamples=20_000)
    assert (low, high) == (pytest.approx(values.mean() - half, abs=0.05 * half), pytest.approx(values.mean() + half, abs=0.05 * half))
    change = paired_change(values + 10, np.full(images, 10.0), resamples=20_000)
    assert change.change == pytest.approx(values.mean() / 10)
    assert change.low == pytest.approx(max(-1, (values.mean() - half) / 10), abs=0.01 * half)
    assert change.high == pytest.approx((values.mean() + half) / 10, abs=0.01 * half)


def test_one_image_has_no_interval():
    assert interval(np.array([2.5])) == (-np.inf, np.inf)
    assert paired_change(np.array([2.0]), np.array([1.0])) == Change(1.0, None, None)


@pytest.mark.parametrize(
    ("count", "total", "ends"), [(0, 10, (0, 0.278)), (21, 21, (0.845, 1)), (15, 21, (0.500, 0.862)), (50, 100, (0.404, 0.596))]
)
def test_shares_have_wilson_intervals(count, total, ends):
    """Values of Wilson's formula from statistical tables; neither 0 nor 1 gives an interval of width 0."""
    assert share_interval(count, total) == pytest.approx(ends, abs=1e-3)


@pytest.fixture(scope="module")
def counts():
    """Return n-gram counts of 31 random captions for a good and a worse captioner."""
    random = np.random.default_rng(3)
    count = own_counter()
    good, worse = [], []
    for _ in range(31):
        references = [[str(word) for word in random.integers(0, 9, random.integers(6, 12))] for _ in range(5)]
        caption = references[0][:-1]
        good.append(count(caption, references))
        worse.append(count([*caption[: random.integers(2, len(caption))], "no"], references))
    return good, worse


def test_interval_equals_a_loop():
    values = np.random.default_rng(1).normal(5, 2, 37)
    by_hand = outer([values[drawn].mean() for drawn in draws(37)])
    assert interval(values, resamples=RESAMPLES, seed=SEED) == pytest.approx(by_hand, abs=1e-12)


def test_change_of_a_mean_equals_a_loop():
    random = np.random.default_rng(2)
    baseline = random.uniform(0.5, 1.5, 37)
    case = baseline * random.uniform(0.8, 1.1, 37)
    low, high = outer([case[drawn].mean() / baseline[drawn].mean() - 1 for drawn in draws(37)])
    result = paired_change(case, baseline, resamples=RESAMPLES, seed=SEED)
    assert (result.change, result.low, result.high) == pytest.approx((case.mean() / baseline.mean() - 1, low, high), abs=1e-12)


def test_change_of_bleu_equals_a_loop(counts):
    good, worse = counts

    def change(drawn):
        return bleu([worse[index] for index in drawn])[3] / bleu([good[index] for index in drawn])[3] - 1

    low, high = outer([change(drawn) for drawn in draws(31)])
    result = paired_change(count_matrix(worse), count_matrix(good), bleu4_of_sums, RESAMPLES, SEED)
    assert (result.change, result.low, result.high) == pytest.approx((change(range(31)), low, high), abs=1e-12)
    assert low < result.change < high < 0


def test_the_memory_limit_does_not_change_the_draws(monkeypatch):
    values = np.random.default_rng(4).uniform(0, 1, 37)
    whole = interval(values, resamples=RESAMPLES, seed=SEED)
    monkeypatch.setattr(intervals, "_DRAWS_AT_ONCE", 37 * 3)
    assert interval(values, resamples=RESAMPLES, seed=SEED) == pytest.approx(whole, abs=1e-15)


def test_the_seed_determines_the_interval():
    values = np.random.default_rng(5).uniform(0, 1, 50)
    assert interval(values, seed=1) == interval(values, seed=1)
    assert interval(values, seed=1) != interval(values, seed=2)


def test_equal_values_have_an_interval_of_width_zero():
    assert interval(np.full(13, 0.1)) == (0.1, 0.1)
    assert interval(np.full(2, 2.5)) == (2.5, 2.5)


def test_a_case_equal_to_the_baseline_has_not_changed(counts):
    good = count_matrix(counts[0])
    assert paired_change(good, good, bleu4_of_sums) == Change(0, 0, 0)
    values = np.random.default_rng(6).uniform(0, 1, 50)
    assert paired_change(values, values) == Change(0, 0, 0)


def test_pairing_cancels_differences_between_images():
    baseline = np.random.default_rng(8).uniform(1, 100, 50)
    result = paired_change(baseline * 0.9, baseline)
    assert (result.change, result.low, result.high) == pytest.approx((-0.1, -0.1, -0.1), abs=1e-12)


def test_the_interval_of_a_normal_sample_has_its_theoretical_width():
    values = np.random.default_rng(9).normal(0, 1, 2000)
    low, high = interval(values)
    assert (high - low) == pytest.approx(2 * 1.96 * values.std() / np.sqrt(2000), rel=0.05)


def test_a_baseline_of_zero_has_no_relative_change():
    assert paired_change(np.ones(5), np.zeros(5)) == Change(None, None, None)


def test_many_resamples_with_a_baseline_of_zero_give_no_upper_end():
    # (19/20)^20 = 36 % of the resamples do not contain the only image with a baseline above 0
    baseline = np.array([1.0] + [0.0] * 19)
    assert paired_change(np.ones(20), baseline) == Change(19.0, None, None)


def test_few_resamples_with_a_baseline_of_zero_leave_both_ends_finite():
    # e^-8 = 0.03 % of the resamples contain none of the 8 images with a baseline above 0
    baseline = np.array([1.0] * 8 + [0.0] * 92)
    result = paired_change(np.full(100, 0.08), baseline)
    assert result.change == pytest.approx(0, abs=1e-12)
    assert -0.6 < result.low < 0 < result.high < 3


@pytest.mark.parametrize(("case", "baseline"), [(3, 4), (0, 0)])
def test_sets_that_cannot_be_paired_are_refused(case, baseline):
    with pytest.raises(ValueError, match=f"{case} .*{baseline} "):
        paired_change(np.ones(case), np.ones(baseline))
