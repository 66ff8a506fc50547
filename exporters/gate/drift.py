"""Drift: how much less likely the captions that people wrote become, compared with the FP32 model, in nat per token."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from exporters.gate.intervals import Float64, interval


@dataclass(frozen=True, kw_only=True)
class Drift:
    """Drift over a set of images, with its 95 % confidence interval."""

    nat: float
    """Increase of the negative log-probability per token."""
    low: float
    high: float
    """Ends of the interval; infinite for one image."""
    spread: float
    """Standard deviation over images of one image's share in `nat`; NaN for one image."""
    images: int


def drift_of_sums(sums: Float64) -> Float64:
    """Return the drift f64[R], in nat per token, of sums f64[R,2]: decrease in log-probability, number of tokens."""
    return np.asarray(sums[:, 0] / sums[:, 1])


def summed_by(units: Sequence[object], rows: Float64) -> Float64:
    """Return the sums of rows f64[N,K] of equal units, f64[M,K]: the questions about one image are one unit of an interval over images."""
    numbers = {unit: number for number, unit in enumerate(dict.fromkeys(units))}
    sums = np.zeros((len(numbers), rows.shape[1]))
    np.add.at(sums, [numbers[unit] for unit in units], rows)
    return sums


def measure_drift(decreases: Float64, tokens: Float64) -> Drift:
    """Return the drift of a set of images.

    Args:
        decreases: f64[N], the FP32 model's log-probability of an image's captions minus the artifact's, in nat.
        tokens: f64[N], number of tokens of these captions.
    """
    rows = np.stack([decreases, tokens], axis=1).astype(np.float64)
    nat = float(drift_of_sums(rows.sum(axis=0, keepdims=True))[0])
    low, high = interval(rows, drift_of_sums)
    spread = float(np.std((rows[:, 0] - nat * rows[:, 1]) / rows[:, 1].mean(), ddof=1)) if len(rows) > 1 else math.nan
    return Drift(nat=nat, low=low, high=high, spread=spread, images=len(rows))


def drift_text(nat: float, low: float | None, high: float | None) -> str:
    """Format a drift, with its interval unless that is None."""
    drift, *ends = (None if value is None else round(value, 4) + 0.0 for value in (nat, low, high))  # + 0.0 turns -0.0 into 0.0
    return f"{drift:+.4f}" if None in ends else f"{drift:+.4f} [{ends[0]:+.4f}, {ends[1]:+.4f}]"
