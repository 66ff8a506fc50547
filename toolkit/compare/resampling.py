"""Intervals of changes between two runs: samples of A and B go in, B's relative change with its 95 % bootstrap interval comes out.

Two things are drawn, with replacement. Repeats, of A and of B apart: each is a process of its own, and A's ran at other times than B's.
And pictures, the same ones for A and B: what makes a picture long or short for both cancels out. A figure of a whole process has repeats
alone. With a single repeat nothing tells how much a process differs from the next, so that there is no interval.

Axes: S resamples, R repeats, N pictures, K numbers a picture.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from exporters.bootstrap import TAILS, Change, Float64

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
    return relative(before, after, np.concatenate(changes))


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


def _drawn(one: Float64, pictures: npt.NDArray[np.int64], repeats: npt.NDArray[np.int64]) -> Float64:
    """f64[R,N,K] at drawn repeats i64[S,R] and pictures i64[S,N] → f64[S,R*N,K]."""
    return one[repeats[:, :, None], pictures[:, None, :]].reshape(len(pictures), -1, one.shape[2])
