"""Test budgets and the journal of a search."""

import pytest

from exporters.gate.drift import Drift
from exporters.mixed_precision.budget import Budget, parse_budgets
from runtimes.errors import RequestError


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (("drift<=0.01",), Budget(drift_nat=0.01)),
        (("drift <= 1e-3", "size<=180MB"), Budget(drift_nat=0.001, size_bytes=180_000_000)),
        (("size<=1.5 GB", "drift<=0.02"), Budget(drift_nat=0.02, size_bytes=1_500_000_000)),
    ],
)
def test_budgets_are_parsed(texts, expected):
    assert parse_budgets(texts) == expected


@pytest.mark.parametrize(
    ("texts", "problem"),
    [
        (("size<=180MB",), "a budget for drift is needed"),
        (("drift<0.01",), "'drift<0.01' is no budget"),
        (("drift<=0.01", "size<=180"), "'size<=180' is no budget"),
        (("drift<=0.01MB",), "is no budget"),
        (("drift<=0",), "positive number"),
        (("drift<=nan",), "is no budget"),
        (("drift<=1e999",), "positive number"),
        (("drift<=0.01", "drift<=0.02"), "each is named once"),
        (("time<=3",), "is no budget"),
    ],
)
def test_an_invalid_budget_is_an_error_in_one_line(texts, problem):
    with pytest.raises(RequestError, match=problem) as caught:
        parse_budgets(texts)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("nat", "high", "size", "verdict"),
    [(0.005, 0.01, 100, "met"), (0.01, 0.02, 100, "met on average"), (0.011, 0.02, 100, "not met"), (0.001, 0.002, 101, "not met")],
)
def test_the_verdict_needs_the_upper_bound(nat, high, size, verdict):
    drift = Drift(nat=nat, low=0.0, high=high, spread=0.01, images=40)
    assert Budget(drift_nat=0.01, size_bytes=100).judge(drift, size) == verdict
