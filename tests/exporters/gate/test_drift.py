"""Drift and its spread, by hand."""

import math

import numpy as np
import pytest

from exporters.gate.drift import measure_drift, summed_by


def test_drift_is_the_decrease_per_token_of_all_images_together():
    drift = measure_drift(np.array([3.0, 0.0, 1.0]), np.array([10, 20, 10]))
    assert (drift.nat, drift.images) == (0.1, 3)
    # an image's share in excess of the mean: (3 - 1, 0 - 2, 1 - 1) nat over a mean of 40/3 tokens
    assert drift.spread == pytest.approx(math.sqrt((4 + 4) / 2) / (40 / 3))
    assert drift.low < 0 < 0.1 < drift.high


def test_the_spread_gives_the_standard_error():
    random = np.random.default_rng(5)
    drifts = [measure_drift(random.normal(0.5, 1, 60), random.integers(40, 80, 60)) for _ in range(60)]
    assert np.mean([drift.spread for drift in drifts]) / math.sqrt(60) == pytest.approx(np.std([drift.nat for drift in drifts]), rel=0.25)


def test_one_image_has_a_drift_without_an_interval():
    drift = measure_drift(np.array([1.0]), np.array([10.0]))
    assert (drift.nat, drift.low, drift.high) == (0.1, -math.inf, math.inf)
    assert math.isnan(drift.spread)


def test_rows_of_one_unit_are_summed_in_the_order_of_the_units():
    rows = np.array([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]])
    assert summed_by(["b", "a", "b"], rows).tolist() == [[5.0, 50.0], [2.0, 20.0]]
    assert summed_by([1, 2, 3], rows).tolist() == rows.tolist()
