"""Test the bootstrap against a plain loop over the same draws, and in cases with a known result."""

import numpy as np
import pytest

from exporters.gate import intervals
from exporters.gate.intervals import Change, interval, paired_change
from toolkit.metrics.bleu import bleu, bleu4_of_sums, count_matrix
from toolkit.metrics.ngrams import own_counter

RESAMPLES = 200
SEED = 7


def draws(images):
    return np.random.default_rng(SEED).integers(0, images, size=(RESAMPLES, images))


def outer(scores):
    """Return the 2.5 % and 97.5 % order statistics, rounded outward: positions 4.975 and 194.025 of 0..199."""
    ordered = sorted(scores)
    return ordered[4], ordered[195]


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
    assert interval(np.array([2.5])) == (2.5, 2.5)


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
