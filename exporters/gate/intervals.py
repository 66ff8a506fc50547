"""Bootstrap over pictures: per-picture numbers go in, 95 % intervals of a mean or of a relative change of a score come out.

A score takes part when it is a function of sums over pictures: a mean of per-picture values (CIDEr-D, ROUGE-L, drift) is one of
them, corpus BLEU another, of ten counts. So each resample is a row of weights (how often each picture was drawn), all sums are one
matrix product, and BLEU-4 of 2000 resamples of 5000 pictures takes a fraction of a second.

Case and baseline are drawn together: a resample holds the same pictures for both, and what makes a picture easy or hard for both
cancels out. Pictures are the only thing drawn; CIDEr-D's document frequencies stay those of the whole set.

Axes: N pictures, K numbers a picture, R resamples.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

Score = Callable[[Float64], Float64]
"""Sums over pictures f64[R,K] -> scores f64[R]."""

TAILS = (0.025, 0.975)
"""Of a 95 % interval."""

_DRAWS_AT_ONCE = 1_000_000
"""Bounds memory at some 16 MB."""


@dataclass(frozen=True)
class Change:
    """Relative change of a score against the baseline's: -0.02 is 2 % lower."""

    change: float | None
    """None when the baseline scores 0."""
    low: float | None
    high: float | None
    """Ends of the 95 % interval; None when too many resamples have a baseline of 0 to tell."""


def total(sums: Float64) -> Float64:
    """Score sets of pictures f64[R,1] by the sum of one value, f64[R]: its relative change is that of the mean."""
    return sums[:, 0]


def interval(values: Float64, score: Score | None = None, resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
    """Estimate how far a score would move with other pictures of the same kind.

    Args:
        values: f64[N] or f64[N,K], N >= 1, what each picture adds to the sums that `score` takes.
        score: sums f64[R,K] -> scores f64[R]; the mean of f64[N] if not given.
        resamples: how many sets of N pictures to draw, with replacement.
        seed: same seed, same interval.

    Returns:
        Lower and upper end of the 95 % percentile interval.
    """
    if score is not None:
        scores = score(_resampled_sums([values.reshape(len(values), -1)], resamples, seed)[0])
        return _ends(scores, scores)
    origin = values[0]  # equal values then have differences of exactly 0, and an interval of width 0
    means = origin + _resampled_sums([(values - origin).reshape(-1, 1)], resamples, seed)[0][:, 0] / len(values)
    return _ends(means, means)


def paired_change(case: Float64, baseline: Float64, score: Score = total, resamples: int = 2000, seed: int = 0) -> Change:
    """Estimate the relative change of a score, case / baseline - 1, on the same pictures.

    For a mean: `paired_change(cider_of_case, cider_of_baseline)`.
    For BLEU-4: `paired_change(count_matrix(case), count_matrix(baseline), bleu4_of_sums)`.

    Args:
        case: f64[N] or f64[N,K], what each picture adds to the sums that `score` takes.
        baseline: the same of the baseline, pictures in the same order.
        score: sums f64[R,K] -> scores f64[R], which are 0 or more.
        resamples: how many sets of N pictures to draw, with replacement.
        seed: same seed, same pictures drawn, for whatever score.

    Returns:
        The change on all pictures, with its 95 % percentile interval.

    Raises:
        ValueError: case and baseline are not about the same number of pictures, or about none.
    """
    if len(case) != len(baseline) or len(case) == 0:
        raise ValueError(f"{len(case)} pictures of the case and {len(baseline)} of the baseline cannot be paired")
    rows = [case.reshape(len(case), -1), baseline.reshape(len(baseline), -1)]
    ours, theirs = (float(score(one.sum(axis=0, keepdims=True))[0]) for one in rows)
    if theirs == 0:
        return Change(None, None, None)
    cases, baselines = (score(sums) for sums in _resampled_sums(rows, resamples, seed))
    known = baselines != 0
    changes = np.divide(cases, baselines, out=np.ones_like(cases), where=known) - 1
    # A resample whose baseline is 0 may stand anywhere, so it counts as lowest for the one end and as highest for the other.
    low, high = _ends(np.where(known, changes, -np.inf), np.where(known, changes, np.inf))
    return Change(ours / theirs - 1, low if np.isfinite(low) else None, high if np.isfinite(high) else None)


def _ends(for_low: Float64, for_high: Float64) -> tuple[float, float]:
    """Percentiles that are values of the sample, rounded outward: no arithmetic between infinities."""
    return float(np.quantile(for_low, TAILS[0], method="lower")), float(np.quantile(for_high, TAILS[1], method="higher"))


def _resampled_sums(rows: list[Float64], resamples: int, seed: int) -> list[Float64]:
    """Sum f64[N,K] over the pictures of each resample: f64[R,K] for each of rows, all over the same draws."""
    pictures = len(rows[0])
    generator = np.random.default_rng(seed)
    sums: list[list[Float64]] = [[] for _ in rows]
    at_once = max(1, _DRAWS_AT_ONCE // pictures)
    for start in range(0, resamples, at_once):
        sets = min(at_once, resamples - start)
        drawn = generator.integers(0, pictures, size=(sets, pictures))
        cells = drawn + np.arange(sets)[:, None] * pictures
        times = np.bincount(cells.ravel(), minlength=sets * pictures).reshape(sets, pictures).astype(np.float64)
        for parts, one in zip(sums, rows, strict=True):
            parts.append(times @ one)
    return [np.concatenate(parts) for parts in sums]
