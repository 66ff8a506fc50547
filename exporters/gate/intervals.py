"""Bootstrap 95 % confidence intervals of means and of relative changes, for the gate, reports and comparisons.

**Resampling of images** (`interval`, `paired_change`) estimates what another set of images would give.

A score must be a function of sums over images. A mean of per-image values (CIDEr-D, ROUGE-L, drift) is one, and so is corpus BLEU, whose
sums are ten counts. A resample is then a row of weights: how often each image was drawn. All sums are one matrix product, so BLEU-4 of 2000
resamples of 5000 images takes a fraction of a second.

Case and baseline use the same resamples, so that differences in difficulty between images cancel out. CIDEr-D's document frequencies are
not resampled; they are those of the whole set.

The percentile interval of n images is too narrow: resamples have (n - 1) / n of the variance, and the normal quantile takes the place of
Student's. The interval here is the expanded percentile interval (Hesterberg 2015, "What Teachers Should Know about the Bootstrap", Am.
Stat. 69), whose tails are Phi(-sqrt(n / (n - 1)) * t) with Student's quantile t of n - 1 degrees of freedom. Below `MIN_PERCENTILE` images
no tail of the resamples is far enough out; there the interval is the estimate plus and minus t standard errors. One image has no interval.

**Resampling of repeats and images** (`change_of_images`, `change_of_repeats`) estimates what another run would give. Repeats of A and B are
drawn independently, because they ran at different times. Images are drawn together if both runs have the same images. For figures of a
whole process, only repeats are drawn. A single repeat gives no interval, because it does not show how much processes differ. The interval
of few repeats is widened.

Axes: N images, K numbers per image, R resamples or repeats, S sets, P pairs of repeat and image.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

Score = Callable[[Float64], Float64]
"""Sums over images f64[R,K] → scores f64[R]."""

Statistic = Callable[[Float64], Float64]
"""Numbers of every image and repeat f64[S,R*N,K] → one figure per set f64[S]."""

TAILS = (0.025, 0.975)
"""Quantiles at the ends of a 95 % interval."""

NORMAL = 1.959964
"""The 97.5 % quantile of the normal distribution."""

STUDENT = (
    *(12.706205, 4.302653, 3.182446, 2.776445, 2.570582, 2.446912, 2.364624, 2.306004, 2.262157, 2.228139),
    *(2.200985, 2.178813, 2.160369, 2.144787, 2.131450, 2.119905, 2.109816, 2.100922, 2.093024, 2.085963),
)
"""The 97.5 % quantile of Student's t distribution with 1, 2, ... 20 degrees of freedom. The table avoids a dependency on scipy."""

MIN_PERCENTILE = 8
"""Fewer images have a t interval instead of percentiles. With 8 images, the tails are 0.57 %."""

RESAMPLES = 2000
_DRAWS_AT_ONCE = 1_000_000
"""Limits memory to about 16 MB."""
_NUMBERS_AT_ONCE = 2_000_000
"""Limits memory to about 16 MB for each of two runs."""


@dataclass(frozen=True)
class Change:
    """Relative change of a score from the baseline's: -0.02 is 2 % lower."""

    change: float | None
    """None if the baseline's score is 0."""
    low: float | None
    high: float | None
    """Ends of the 95 % interval. An end is None if too many resamples have a baseline of 0."""


def total(sums: Float64) -> Float64:
    """Return the single sum of each resample, f64[R,1] → f64[R]. Its relative change equals that of the mean."""
    return sums[:, 0]


def interval(values: Float64, score: Score | None = None, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """Estimate how much a score varies between sets of images of the same kind.

    Args:
        values: f64[N] or f64[N,K], N >= 1: the contribution of each image to the sums that `score` takes.
        score: Sums f64[R,K] → scores f64[R]. The default is the mean of f64[N].
        resamples: Number of sets of N images to draw, with replacement.
        seed: The same seed gives the same interval.

    Returns:
        Lower and upper end of the 95 % interval; minus and plus infinity for one image.
    """
    images = len(values)
    if score is not None:
        rows = values.reshape(images, -1)
        return _ends(score(_resampled_sums([rows], resamples, seed)[0]), float(score(rows.sum(axis=0, keepdims=True))[0]), images)
    origin = values[0]  # equal values have differences of exactly 0, so their interval has width 0
    differences = (values - origin).reshape(-1, 1)
    means = origin + _resampled_sums([differences], resamples, seed)[0][:, 0] / images
    return _ends(means, float(origin + differences.mean()), images)


def finite(bound: float, digits: int | None = None) -> float | None:
    """Return a bound of an interval as a JSON value, rounded to `digits` if given; None if it is infinite."""
    if not np.isfinite(bound):
        return None
    return bound if digits is None else round(bound, digits)


def share_interval(count: int, total: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a share. A bootstrap of a share of 0 or 1 has width 0; this interval does not.

    Args:
        count: Number of images with a property.
        total: Number of all images, 1 or more.
    """
    share, squared = count / total, NORMAL**2 / total
    middle = (share + squared / 2) / (1 + squared)
    half = math.sqrt(squared * share * (1 - share) + squared**2 / 4) / (1 + squared)
    return max(0.0, middle - half), min(1.0, middle + half)


def paired_change(case: Float64, baseline: Float64, score: Score = total, resamples: int = RESAMPLES, seed: int = 0) -> Change:
    """Estimate the relative change of a score, case / baseline - 1, on the same images.

    For a mean: `paired_change(cider_of_case, cider_of_baseline)`.
    For BLEU-4: `paired_change(count_matrix(case), count_matrix(baseline), bleu4_of_sums)`.

    Args:
        case: f64[N] or f64[N,K]: the contribution of each image to the sums that `score` takes.
        baseline: The same for the baseline, with images in the same order.
        score: Sums f64[R,K] → scores f64[R], which are 0 or more.
        resamples: Number of sets of N images to draw, with replacement.
        seed: The same seed draws the same images for every score.

    Returns:
        The change on all images, with its 95 % interval.

    Raises:
        ValueError: `case` and `baseline` have different lengths, or length 0.
    """
    if len(case) != len(baseline) or len(case) == 0:
        raise ValueError(f"{len(case)} images of the case and {len(baseline)} of the baseline cannot be paired")
    rows = [case.reshape(len(case), -1), baseline.reshape(len(baseline), -1)]
    case_score, baseline_score = (float(score(matrix.sum(axis=0, keepdims=True))[0]) for matrix in rows)
    if baseline_score == 0:
        return Change(None, None, None)
    change = case_score / baseline_score - 1
    cases, baselines = (score(sums) for sums in _resampled_sums(rows, resamples, seed))
    known = baselines != 0
    # The change of a resample with a baseline of 0 is unknown: it counts as lowest for the lower end and as highest for the upper end.
    changes = np.divide(cases, baselines, out=np.full_like(cases, np.inf), where=known) - 1
    low, high = _ends(changes, change, len(case))
    lowest = finite(low)
    return Change(change, None if lowest is None else max(lowest, -1.0), finite(high))


def _ends(resampled: Float64, estimate: float, images: int) -> tuple[float, float]:
    """Return the ends of the 95 % interval.

    Args:
        resampled: f64[R], the figure of each resample; infinite if it is unknown.
        estimate: The figure of all images.
        images: Number of images.
    """
    for_low = np.where(np.isfinite(resampled), resampled, -np.inf)
    if images < MIN_PERCENTILE:
        if images == 1 or not np.isfinite(resampled).all():
            return -math.inf, math.inf
        half = float(resampled.std()) * math.sqrt(images / (images - 1)) * student(images - 1)
        return estimate - half, estimate + half
    tail = expanded_tail(images)
    # Values of the sample, chosen outward: interpolation would compute with infinities.
    return float(np.quantile(for_low, tail, method="lower")), float(np.quantile(resampled, 1 - tail, method="higher"))


def expanded_tail(images: int) -> float:
    """Return the share of resamples below the lower end of the expanded percentile interval of n >= 2 images."""
    return math.erfc(math.sqrt(images / (images - 1) / 2) * student(images - 1)) / 2


def _resampled_sums(rows: list[Float64], resamples: int, seed: int) -> list[Float64]:
    """Sum each matrix f64[N,K] of `rows` over the images of each resample, f64[R,K]. All matrices use the same draws."""
    images = len(rows[0])
    generator = np.random.default_rng(seed)
    sums: list[list[Float64]] = [[] for _ in rows]
    at_once = max(1, _DRAWS_AT_ONCE // images)
    for start in range(0, resamples, at_once):
        sets = min(at_once, resamples - start)
        drawn = generator.integers(0, images, size=(sets, images))
        cells = drawn + np.arange(sets)[:, None] * images
        times = np.bincount(cells.ravel(), minlength=sets * images).reshape(sets, images).astype(np.float64)
        for parts, matrix in zip(sums, rows, strict=True):
            parts.append(times @ matrix)
    return [np.concatenate(parts) for parts in sums]


def change_of_images(a: Float64, b: Float64, statistic: Statistic, *, paired: bool, resamples: int = RESAMPLES) -> Change:
    """Estimate the relative change of a figure from run A to run B, from numbers per repeat and image.

    Args:
        a: f64[R,N,K], the numbers of run A.
        b: f64[R,N,K], the numbers of run B, possibly with another R and N.
        statistic: Computes the figure.
        paired: Whether A and B have the same images, in the same order.
        resamples: Number of sets to draw.
    """
    before, after = (float(statistic(run.reshape(1, -1, run.shape[2]))[0]) for run in (a, b))
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
            statistic(_drawn(run, drawn, generator.integers(0, len(run), size=(sets, len(run)))))
            for run, drawn in ((a, images), (b, others))
        )
        changes.append(np.divide(afters, befores, out=np.ones_like(afters), where=befores != 0) - 1)
    return _widened(relative(before, after, np.concatenate(changes)), min(len(a), len(b)))


def change_of_repeats(a: Sequence[float], b: Sequence[float], *, resamples: int = RESAMPLES) -> Change:
    """Estimate the relative change of the median figure from run A to run B, from one figure per repeat."""
    if not a or not b:
        return Change(None, None, None)
    before, after = (np.array(run, dtype=np.float64).reshape(len(run), 1, 1) for run in (a, b))
    return change_of_images(before, after, medians, paired=False, resamples=resamples)


def relative(before: float, after: float, resampled: Float64 | None = None) -> Change:
    """Return the relative change from one figure to another, with an interval from resampled changes f64[S] if given.

    The change from 0 is None.
    """
    if before == 0:
        return Change(None, None, None)
    if resampled is None:
        return Change(after / before - 1, None, None)
    low, high = np.quantile(resampled, TAILS)
    return Change(after / before - 1, float(low), float(high))


def medians(numbers: Float64) -> Float64:
    """Return the median of the first number, f64[S,P,K] → f64[S]."""
    return np.asarray(np.median(numbers[:, :, 0], axis=1))


def _widened(change: Change, repeats: int) -> Change:
    """Widen the interval of few repeats, which the bootstrap makes too narrow: resamples of n values have (n - 1) / n of their variance.

    The factor is from Hesterberg 2015, "What Teachers Should Know about the Bootstrap": the square root of n / (n - 1), times Student's
    quantile over the normal quantile. It applies to the distance from the change, on a logarithmic scale, so that no end is below -100 %.
    Without it, 11 of 100 comparisons of equal processes excluded 0 with 3 repeats, and 31 with 2.
    """
    if change.change is None or change.low is None or change.high is None or change.low in (change.high, -1):
        return change
    factor = math.sqrt(repeats / (repeats - 1)) * student(2 * (repeats - 1)) / NORMAL
    middle = math.log1p(change.change)
    low, high = (math.expm1(middle + (math.log1p(end) - middle) * factor) for end in (change.low, change.high))
    return Change(change.change, low, high)


def student(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t for 1 or more degrees of freedom.

    Beyond the table it is an expansion in 1 / freedom (Abramowitz and Stegun 26.7.5), whose error is below 1e-5 there.
    """
    if freedom <= len(STUDENT):
        return STUDENT[freedom - 1]
    z = NORMAL
    terms = ((z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384)
    return z + sum(term / freedom**power for power, term in enumerate(terms, start=1))


def _drawn(run: Float64, images: npt.NDArray[np.int64], repeats: npt.NDArray[np.int64]) -> Float64:
    """Take the drawn repeats i64[S,R] and images i64[S,N] of a run f64[R,N,K]; return f64[S,R*N,K]."""
    return run[repeats[:, :, None], images[:, None, :]].reshape(len(images), -1, run.shape[2])
