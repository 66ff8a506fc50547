"""Bootstrap 95 % intervals, for the gate, reports and comparisons: of a mean, and of relative changes.

**Over images** (`interval`, `paired_change`): what another set of images would give.

A score takes part when it is a function of sums over images: a mean of per-image values (CIDEr-D, ROUGE-L, drift) is one of
them, corpus BLEU another, of ten counts. So each resample is a row of weights (how often each image was drawn), all sums are one
matrix product, and BLEU-4 of 2000 resamples of 5000 images takes a fraction of a second.

Case and baseline are drawn together: a resample holds the same images for both, and what makes an image easy or hard for both
cancels out. Images are the only thing drawn; CIDEr-D's document frequencies stay those of the whole set.

**Over repeats and images** (`change_of_images`, `change_of_repeats`): what another run would give. Repeats of A and B are drawn apart,
since they ran at other times. Images are drawn together where they are the same ones. A figure of a whole process has repeats alone.
A single repeat gives no interval, since nothing tells how much one process differs from the next; with few repeats it is widened.

Axes: N images, K numbers an image, R resamples or repeats, S sets.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

Score = Callable[[Float64], Float64]
"""Sums over images f64[R,K] -> scores f64[R]."""

Statistic = Callable[[Float64], Float64]
"""Numbers of every image and repeat f64[S,R*N,K] -> one figure per set f64[S]."""

TAILS = (0.025, 0.975)
"""Of a 95 % interval."""

NORMAL = 1.959964
"""The 97.5 % quantile of the normal distribution."""

STUDENT = (4.302653, 2.776445, 2.446912, 2.306004, 2.228139, 2.178813, 2.144787, 2.119905, 2.100922, 2.085963)
"""That of Student's distribution with 2, 4, ... 20 degrees of freedom; ten rows spare a report scipy."""

RESAMPLES = 2000
_DRAWS_AT_ONCE = 1_000_000
"""Bounds memory at some 16 MB."""
_NUMBERS_AT_ONCE = 2_000_000
"""Likewise, for each of two runs."""


@dataclass(frozen=True)
class Change:
    """Relative change of a score against the baseline's: -0.02 is 2 % lower."""

    change: float | None
    """None when the baseline scores 0."""
    low: float | None
    high: float | None
    """Ends of the 95 % interval; None when too many resamples have a baseline of 0 to tell."""


def total(sums: Float64) -> Float64:
    """Score sets of images f64[R,1] by the sum of one value, f64[R]: its relative change is that of the mean."""
    return sums[:, 0]


def interval(values: Float64, score: Score | None = None, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """Estimate how far a score would move with other images of the same kind.

    Args:
        values: f64[N] or f64[N,K], N >= 1, what each image adds to the sums that `score` takes.
        score: sums f64[R,K] -> scores f64[R]; the mean of f64[N] if not given.
        resamples: how many sets of N images to draw, with replacement.
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


def paired_change(case: Float64, baseline: Float64, score: Score = total, resamples: int = RESAMPLES, seed: int = 0) -> Change:
    """Estimate the relative change of a score, case / baseline - 1, on the same images.

    For a mean: `paired_change(cider_of_case, cider_of_baseline)`.
    For BLEU-4: `paired_change(count_matrix(case), count_matrix(baseline), bleu4_of_sums)`.

    Args:
        case: f64[N] or f64[N,K], what each image adds to the sums that `score` takes.
        baseline: the same of the baseline, images in the same order.
        score: sums f64[R,K] -> scores f64[R], which are 0 or more.
        resamples: how many sets of N images to draw, with replacement.
        seed: same seed, same images drawn, for whatever score.

    Returns:
        The change on all images, with its 95 % percentile interval.

    Raises:
        ValueError: case and baseline are not about the same number of images, or about none.
    """
    if len(case) != len(baseline) or len(case) == 0:
        raise ValueError(f"{len(case)} images of the case and {len(baseline)} of the baseline cannot be paired")
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
    """Sum f64[N,K] over the images of each resample: f64[R,K] for each of rows, all over the same draws."""
    images = len(rows[0])
    generator = np.random.default_rng(seed)
    sums: list[list[Float64]] = [[] for _ in rows]
    at_once = max(1, _DRAWS_AT_ONCE // images)
    for start in range(0, resamples, at_once):
        sets = min(at_once, resamples - start)
        drawn = generator.integers(0, images, size=(sets, images))
        cells = drawn + np.arange(sets)[:, None] * images
        times = np.bincount(cells.ravel(), minlength=sets * images).reshape(sets, images).astype(np.float64)
        for parts, one in zip(sums, rows, strict=True):
            parts.append(times @ one)
    return [np.concatenate(parts) for parts in sums]


def change_of_images(a: Float64, b: Float64, statistic: Statistic, *, paired: bool, resamples: int = RESAMPLES) -> Change:
    """Compare two runs by what each image took.

    Args:
        a: f64[R,N,K], of the first run.
        b: Likewise of the second; if paired, the same images in the same order.
        statistic: The figure.
        paired: Whether the images are the same.
        resamples: How many sets to draw.
    """
    before, after = (float(statistic(one.reshape(1, -1, one.shape[2]))[0]) for one in (a, b))
    if before == 0 or len(a) < 2 or len(b) < 2:
        return relative(before, after)
    generator = np.random.default_rng(0)
    changes = []
    at_once = max(1, _NUMBERS_AT_ONCE // max(a.size, b.size))
    for start in range(0, resamples, at_once):
        sets = min(at_once, resamples - start)
        images = generator.integers(0, a.shape[1], size=(sets, a.shape[1]))
        others = images if paired else generator.integers(0, b.shape[1], size=(sets, b.shape[1]))
        befores, afters = (
            statistic(_drawn(one, drawn, generator.integers(0, len(one), size=(sets, len(one)))))
            for one, drawn in ((a, images), (b, others))
        )
        changes.append(np.divide(afters, befores, out=np.ones_like(afters), where=befores != 0) - 1)
    return _widened(relative(before, after, np.concatenate(changes)), min(len(a), len(b)))


def change_of_repeats(a: Sequence[float], b: Sequence[float], *, resamples: int = RESAMPLES) -> Change:
    """Compare two runs by a figure of each repeat: the change of their median."""
    if not a or not b:
        return Change(None, None, None)
    before, after = (np.array(one, dtype=np.float64).reshape(len(one), 1, 1) for one in (a, b))
    return change_of_images(before, after, medians, paired=False, resamples=resamples)


def relative(before: float, after: float, resampled: Float64 | None = None) -> Change:
    """Return the change from a figure to another; none from 0."""
    if before == 0:
        return Change(None, None, None)
    if resampled is None:
        return Change(after / before - 1, None, None)
    low, high = np.quantile(resampled, TAILS)
    return Change(after / before - 1, float(low), float(high))


def medians(numbers: Float64) -> Float64:
    """Take the median of the first number, f64[S,P,K] → f64[S]."""
    return np.asarray(np.median(numbers[:, :, 0], axis=1))


def _widened(change: Change, repeats: int) -> Change:
    """Widen an interval from few repeats, which the bootstrap makes too narrow: a set drawn from n has (n - 1) / n of their variance.

    Hesterberg 2015, "What Teachers Should Know about the Bootstrap": by the root of n / (n - 1) and by Student's quantile over the normal
    one, about the change itself; here on the logarithm, so that nothing changes by less than -100 %. Without it 11 of 100 changes that
    were none looked clear with 3 repeats of a process, and 31 with 2.
    """
    if change.change is None or change.low is None or change.high is None or change.low in (change.high, -1):
        return change
    factor = math.sqrt(repeats / (repeats - 1)) * _student(2 * (repeats - 1)) / NORMAL
    middle = math.log1p(change.change)
    low, high = (math.expm1(middle + (math.log1p(end) - middle) * factor) for end in (change.low, change.high))
    return Change(change.change, low, high)


def _student(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's distribution for an even number of degrees of freedom; beyond the table its last row."""
    return STUDENT[min(freedom, 2 * len(STUDENT)) // 2 - 1]


def _drawn(one: Float64, images: npt.NDArray[np.int64], repeats: npt.NDArray[np.int64]) -> Float64:
    """f64[R,N,K] at drawn repeats i64[S,R] and images i64[S,N] → f64[S,R*N,K]."""
    return one[repeats[:, :, None], images[:, None, :]].reshape(len(images), -1, one.shape[2])
