"""Intervals of changes between two runs: samples of A and B go in, B's relative change with its 95 % bootstrap interval comes out.

Two things are drawn, with replacement. Repeats, of A and of B apart: each is a process of its own, and A's ran at other times than B's.
And pictures, the same ones for A and B: what makes a picture long or short for both cancels out. A figure of a whole process has repeats
alone. With a single repeat nothing tells how much a process differs from the next, so that there is no interval; with few it is widened.

Axes: S resamples, R repeats, N pictures, K numbers a picture.
"""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from exporters.gate.intervals import TAILS, Change, Float64

Statistic = Callable[[Float64], Float64]
"""Numbers of every picture and repeat f64[S,R*N,K] → one figure per set f64[S]."""

RESAMPLES = 2000
_NUMBERS_AT_ONCE = 2_000_000
"""Bounds memory at some 16 MB for each side."""


def change_of_pictures(a: Float64, b: Float64, statistic: Statistic, *, paired: bool, resamples: int = RESAMPLES) -> Change:
    """Compare two runs by what each picture took.

    Args:
        a: f64[R,N,K], of the first run.
        b: Likewise of the second; if paired, the same pictures in the same order.
        statistic: The figure.
        paired: Whether the pictures are the same.
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
        pictures = generator.integers(0, a.shape[1], size=(sets, a.shape[1]))
        others = pictures if paired else generator.integers(0, b.shape[1], size=(sets, b.shape[1]))
        befores, afters = (
            statistic(_drawn(one, drawn, generator.integers(0, len(one), size=(sets, len(one)))))
            for one, drawn in ((a, pictures), (b, others))
        )
        changes.append(np.divide(afters, befores, out=np.ones_like(afters), where=befores != 0) - 1)
    return _widened(relative(before, after, np.concatenate(changes)), min(len(a), len(b)))


def change_of_repeats(a: Sequence[float], b: Sequence[float], *, resamples: int = RESAMPLES) -> Change:
    """Compare two runs by a figure of each repeat: the change of their median."""
    if not a or not b:
        return Change(None, None, None)
    before, after = (np.array(one, dtype=np.float64).reshape(len(one), 1, 1) for one in (a, b))
    return change_of_pictures(before, after, medians, paired=False, resamples=resamples)


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
    factor = math.sqrt(repeats / (repeats - 1)) * _student(2 * (repeats - 1)) / _NORMAL
    middle = math.log1p(change.change)
    low, high = (math.expm1(middle + (math.log1p(end) - middle) * factor) for end in (change.low, change.high))
    return Change(change.change, low, high)


_NORMAL = NormalDist().inv_cdf(TAILS[1])


def _student(freedom: int) -> float:
    """Approximate Student's quantile of the upper tail (Cornish and Fisher's expansion; 3 % off at 2 degrees of freedom, 0.3 % at 4)."""
    z = _NORMAL
    terms = ((z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384)
    return z + sum(term / float(freedom) ** power for power, term in enumerate(terms, start=1))


def _drawn(one: Float64, pictures: npt.NDArray[np.int64], repeats: npt.NDArray[np.int64]) -> Float64:
    """f64[R,N,K] at drawn repeats i64[S,R] and pictures i64[S,N] → f64[S,R*N,K]."""
    return one[repeats[:, :, None], pictures[:, None, :]].reshape(len(pictures), -1, one.shape[2])
