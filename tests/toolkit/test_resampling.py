"""Intervals of changes: against every possible draw, enumerated in plain Python, and in cases where the answer is plain."""

from itertools import product
from statistics import median

import numpy as np
import pytest

from toolkit.compare.resampling import change_of_pictures, change_of_repeats, medians


def of_pictures(a, b, *, paired, statistic=medians, resamples=2000):
    a, b = (np.array(one, dtype=np.float64)[:, :, None] for one in (a, b))
    change = change_of_pictures(a, b, statistic, paired=paired, resamples=resamples)
    return change.change, change.low, change.high


def every_draw(a, b, *, paired):
    """Every equally likely change of the median, over repeats of both and pictures of one or of both."""
    pictures = list(product(range(len(a[0])), repeat=len(a[0])))
    draws = list(zip(pictures, pictures, strict=True)) if paired else list(product(pictures, pictures))
    for (ours, theirs), ra, rb in product(draws, product(range(len(a)), repeat=len(a)), product(range(len(b)), repeat=len(b))):
        yield median(b[r][p] for r in rb for p in theirs) / median(a[r][p] for r in ra for p in ours) - 1


@pytest.mark.parametrize("paired", [True, False])
def test_ends_are_those_of_all_possible_draws(paired):
    a, b = [[1.0, 2.0, 4.0], [1.1, 2.2, 4.4]], [[0.8, 1.5, 3.6], [0.9, 1.8, 3.0]]
    possible = sorted(every_draw(a, b, paired=paired))
    change, low, high = of_pictures(a, b, paired=paired, resamples=50_000)
    assert change == pytest.approx(median([0.8, 1.5, 3.6, 0.9, 1.8, 3.0]) / median([1.0, 2.0, 4.0, 1.1, 2.2, 4.4]) - 1)
    share_below, share_above = np.mean(np.array(possible) < low - 1e-9), np.mean(np.array(possible) > high + 1e-9)
    up_to_low, up_to_high = np.mean(np.array(possible) <= low + 1e-9), np.mean(np.array(possible) >= high - 1e-9)
    assert (share_below <= 0.03, up_to_low >= 0.02) == (True, True)
    assert (share_above <= 0.03, up_to_high >= 0.02) == (True, True)


def test_pictures_that_differ_alike_cancel_out():
    """B takes nine tenths of A for every picture, however long that is."""
    a = [[1.0, 5.0, 20.0, 3.0]] * 2
    b = [[0.9, 4.5, 18.0, 2.7]] * 2
    assert of_pictures(a, b, paired=True) == pytest.approx((-0.1, -0.1, -0.1))
    _, low, high = of_pictures(a, b, paired=False)
    assert low < -0.5 < 0.5 < high, "of other pictures, chance decides which are long"


def test_repeats_that_differ_widen_the_interval():
    _, low, high = of_pictures([[1.0] * 5, [1.0] * 5], [[0.8] * 5, [1.2] * 5], paired=True)
    assert (low, high) == pytest.approx((-0.2, 0.2))


def test_one_repeat_has_no_interval():
    assert of_pictures([[1.0, 2.0]], [[1.0, 2.0], [1.0, 3.0]], paired=True) == (pytest.approx(0.0), None, None)
    change = change_of_repeats([2.0, 2.0], [3.0])
    assert (change.change, change.low, change.high) == (0.5, None, None)


def test_repeats_of_a_process():
    change = change_of_repeats([100.0, 110.0, 105.0], [50.0, 60.0, 55.0])
    assert change.change == pytest.approx(55 / 105 - 1)
    assert (change.low, change.high) == (pytest.approx(50 / 110 - 1, abs=0.03), pytest.approx(60 / 100 - 1, abs=0.03))
    nothing = change_of_repeats([], [1.0])
    assert (nothing.change, nothing.low, nothing.high) == (None, None, None)


def test_from_nothing_there_is_no_relative_change():
    change = change_of_repeats([0.0, 0.0], [1.0, 1.0])
    assert (change.change, change.low, change.high) == (None, None, None)


def test_many_pictures_are_drawn_in_parts():
    """More numbers than fit at once: the same kind of answer."""
    generator = np.random.default_rng(7)
    a = generator.uniform(0.9, 1.1, size=(3, 400)).tolist()
    change, low, high = of_pictures(a, [[value * 1.2 for value in row] for row in a], paired=True)
    assert change == pytest.approx(0.2)
    assert 0.15 < low < 0.2 < high < 0.25
