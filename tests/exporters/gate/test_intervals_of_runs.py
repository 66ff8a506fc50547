"""Test intervals of changes between runs against all possible draws, enumerated in plain Python, and in cases with a known result."""

import math
from itertools import product
from statistics import median

import numpy as np
import pytest

from exporters.gate.intervals import change_of_images, change_of_repeats, medians


def of_images(a, b, *, paired, statistic=medians, resamples=2000):
    a, b = (np.array(run, dtype=np.float64)[:, :, None] for run in (a, b))
    change = change_of_images(a, b, statistic, paired=paired, resamples=resamples)
    return change.change, change.low, change.high


SLACK = 0.001
"""Tolerance: a quantile lies between two values of the sample."""

STUDENT = {2: 4.302653, 4: 2.776445, 6: 2.446912, 8: 2.306004, 18: 2.100922}
"""Degrees of freedom → 97.5 % quantile of Student's t distribution, from a printed table. The normal quantile is 1.959964."""


def narrowed(end, change, repeats):
    """Undo the widening of an interval's end, with the table."""
    factor = math.sqrt(repeats / (repeats - 1)) * STUDENT[2 * repeats - 2] / 1.959964
    return (1 + change) * ((1 + end) / (1 + change)) ** (1 / factor) - 1


def every_draw(a, b, *, paired):
    """Yield the change of the median for all equally likely draws of repeats and images."""
    images = list(product(range(len(a[0])), repeat=len(a[0])))
    draws = list(zip(images, images, strict=True)) if paired else list(product(images, images))
    for (of_a, of_b), ra, rb in product(draws, product(range(len(a)), repeat=len(a)), product(range(len(b)), repeat=len(b))):
        yield median(b[r][p] for r in rb for p in of_b) / median(a[r][p] for r in ra for p in of_a) - 1


@pytest.mark.parametrize("paired", [True, False])
def test_ends_are_those_of_all_possible_draws(paired):
    a, b = [[1.0, 2.0], [1.1, 2.2], [1.05, 1.9]], [[0.8, 1.5], [0.9, 1.8], [0.85, 1.4]]
    possible = sorted(every_draw(a, b, paired=paired))
    change, low, high = of_images(a, b, paired=paired, resamples=50_000)
    assert change == pytest.approx(median([*b[0], *b[1], *b[2]]) / median([*a[0], *a[1], *a[2]]) - 1)
    low, high = (narrowed(end, change, 3) for end in (low, high))
    share_below, share_above = np.mean(np.array(possible) < low - SLACK), np.mean(np.array(possible) > high + SLACK)
    up_to_low, up_to_high = np.mean(np.array(possible) <= low + SLACK), np.mean(np.array(possible) >= high - SLACK)
    assert (share_below <= 0.03, up_to_low >= 0.02) == (True, True)
    assert (share_above <= 0.03, up_to_high >= 0.02) == (True, True)


def test_differences_between_images_cancel_out_if_paired():
    """For every image, B takes nine tenths of A's time."""
    a = [[1.0, 5.0, 20.0, 3.0]] * 2
    b = [[0.9, 4.5, 18.0, 2.7]] * 2
    assert of_images(a, b, paired=True) == pytest.approx((-0.1, -0.1, -0.1))
    _, low, high = of_images(a, b, paired=False)
    assert low < -0.5 < 0.5 < high, "without pairing, slow images are drawn for A and B independently"


def test_repeats_that_differ_widen_the_interval():
    _, low, high = of_images([[1.0] * 5, [1.0] * 5], [[0.8] * 5, [1.2] * 5], paired=True)
    assert [narrowed(end, 0.0, 2) for end in (low, high)] == pytest.approx([-0.2, 0.2], abs=0.01)
    assert low < -0.4 < 0.5 < high, "the interval of two repeats is much wider"


def test_one_repeat_has_no_interval():
    assert of_images([[1.0, 2.0]], [[1.0, 2.0], [1.0, 3.0]], paired=True) == (pytest.approx(0.0), None, None)
    change = change_of_repeats([2.0, 2.0], [3.0])
    assert (change.change, change.low, change.high) == (0.5, None, None)


def test_repeats_of_a_process():
    change = change_of_repeats([100.0, 110.0, 105.0], [50.0, 60.0, 55.0])
    assert change.change == pytest.approx(55 / 105 - 1)
    ends = [narrowed(end, change.change, 3) for end in (change.low, change.high)]
    assert ends == pytest.approx([50 / 110 - 1, 60 / 100 - 1], abs=0.01), "lowest of B over highest of A, and highest of B over lowest of A"


def test_a_change_to_zero_is_minus_100_percent():
    change = change_of_repeats([1.0, 1.0], [0.0, 0.0])
    assert (change.change, change.low, change.high) == (-1.0, -1.0, -1.0)


def test_about_5_percent_of_comparisons_of_equal_processes_exclude_zero():
    """Both runs have three repeats of the same distribution."""
    generator = np.random.default_rng(3)
    runs = generator.normal(100, 3, size=(400, 2, 3)).tolist()
    changes = [change_of_repeats(a, b, resamples=400) for a, b in runs]
    assert 0.005 < np.mean([change.low > 0 or change.high < 0 for change in changes]) < 0.06


def test_no_repeats_give_no_change():
    empty = change_of_repeats([], [1.0])
    assert (empty.change, empty.low, empty.high) == (None, None, None)


def test_a_change_from_zero_has_no_relative_change():
    change = change_of_repeats([0.0, 0.0], [1.0, 1.0])
    assert (change.change, change.low, change.high) == (None, None, None)


def test_many_images_are_drawn_in_parts():
    """There are more numbers than are drawn at once; the result is the same."""
    generator = np.random.default_rng(7)
    a = generator.uniform(0.9, 1.1, size=(3, 400)).tolist()
    change, low, high = of_images(a, [[value * 1.2 for value in row] for row in a], paired=True)
    assert change == pytest.approx(0.2)
    assert 0.15 < low < 0.2 < high < 0.25
