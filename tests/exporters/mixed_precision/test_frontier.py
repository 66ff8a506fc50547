"""Test the choice of formats for all layers together, against all combinations."""

import itertools
import math

import numpy as np
import pytest

from exporters.mixed_precision.frontier import FormatChoice, frontier
from exporters.recipe import Layer

FORMATS = (Layer(weights="qint4", block_size=32), Layer(weights="qint8", block_size=64), Layer(weights="fp16"), Layer())


def random_choices(layers: int, seed: int) -> dict[str, list[FormatChoice]]:
    """Return layers of random size and sensitivity: more bytes have less drift."""
    random = np.random.default_rng(seed)
    choices = {}
    for number in range(layers):
        size, sensitivity = random.integers(1, 100) * 1000, 10 ** random.uniform(-5, -2)
        choices[f"layer{number}"] = [
            FormatChoice(layer_format=each, drift=sensitivity * loss, stored=int(size * part), seconds=float(random.uniform(1e-4, 1e-2)))
            for each, loss, part in zip(FORMATS, (1, 0.05, 1e-4, 0), (0.5, 1, 2, 4), strict=True)
        ]
    return choices


def totals(assignment) -> tuple[float, int, float]:
    return tuple(sum(getattr(choice, key) for choice in assignment.values()) for key in ("drift", "stored", "seconds"))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("objective", ["size", "time"])
def test_no_combination_is_better_than_one_on_the_frontier(seed, objective):
    choices = random_choices(5, seed)
    points = [totals(each) for each in frontier(choices, objective, math.inf)]
    every = [totals(dict(zip(choices, each, strict=True))) for each in itertools.product(*choices.values())]
    cost = {"size": 1, "time": 2}[objective]
    for each in points:
        better = [other for other in every if other[0] <= each[0] and other[cost] <= each[cost] and other[:1] + other[cost:] != each]
        assert not any(other[0] < each[0] and other[cost] < each[cost] * (1 - 1e-9) for other in better)
    assert [each[0] for each in points] == sorted((each[0] for each in points), reverse=True)
    assert points[0][cost] == pytest.approx(min(other[cost] for other in every))
    assert points[-1][0] == min(other[0] for other in every)


def test_a_size_limit_holds_for_every_assignment_and_the_fastest_within_it_is_near():
    choices = random_choices(5, 7)
    every = [totals(dict(zip(choices, each, strict=True))) for each in itertools.product(*choices.values())]
    limit = float(np.median([stored for _, stored, _ in every]))
    points = [totals(each) for each in frontier(choices, "time", limit)]
    assert points
    assert all(stored <= limit for _, stored, _ in points)
    assert min(each[2] for each in points) <= 1.25 * min(seconds for _, stored, seconds in every if stored <= limit)


def test_a_size_limit_below_the_smallest_formats_gives_nothing():
    choices = random_choices(4, 1)
    least = sum(min(choice.stored for choice in each) for each in choices.values())
    assert frontier(choices, "size", least - 1) == []
    assert totals(frontier(choices, "size", least)[0])[1] == least
