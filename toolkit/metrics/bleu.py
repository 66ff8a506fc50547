"""Compute corpus BLEU-1..4 from the n-gram counts of images.

`toolkit.metrics.ngrams` counts, possibly with a library; this module scores. There are two reasons to separate them. COCO's brevity penalty
uses the reference closest in length, but HF `evaluate` uses the shortest. A corpus score is a function of summed counts, so the bootstrap
can score thousands of resamples without counting again.

Axes: N images, R sets of images, 10 columns = matches of 1..4 words, totals of 1..4 words, hypothesis length, reference length.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Four = tuple[int, int, int, int]
"""One count for n = 1, 2, 3, 4."""


@dataclass(frozen=True, kw_only=True)
class NgramCounts:
    """The counts of one image."""

    matches: Four
    """Clipped matches: each n-gram of the hypothesis counts at most as often as in the reference that has it most often."""
    totals: Four
    """N-grams of the hypothesis."""
    hypothesis_length: int
    """In words."""
    reference_length: int
    """In words, of the reference closest in length; of two equally close ones, the shorter."""


def count_matrix(counts: Sequence[NgramCounts]) -> npt.NDArray[np.float64]:
    """Return counts as f64[N,10], one row per image, for `bleu_of_sums` and the bootstrap; integers are exact up to 2**53."""
    rows = [(*image.matches, *image.totals, image.hypothesis_length, image.reference_length) for image in counts]
    return np.array(rows, dtype=np.float64).reshape(len(rows), 10)


def bleu_of_sums(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Score sets of images from their summed counts.

    Args:
        sums: f64[R,10], each row the sum of some rows of `count_matrix`.

    Returns:
        f64[R,4], BLEU-1..4 in 0..1; 0 where a precision is 0.
    """
    matches, totals, hypothesis, reference = sums[:, 0:4], sums[:, 4:8], sums[:, 8:9], sums[:, 9:10]
    with np.errstate(divide="ignore"):  # log 0 = -inf, and exp(-inf) = 0 is the score
        log_precision = np.log(matches / np.maximum(totals, 1))
    log_mean = np.cumsum(log_precision, axis=1) / np.arange(1, 5)
    log_penalty = np.minimum(0, 1 - reference / np.maximum(hypothesis, 1))
    scores: npt.NDArray[np.float64] = np.exp(log_mean + log_penalty)
    return scores


def bleu4_of_sums(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return BLEU-4 f64[R] of sets of images f64[R,10], as `exporters.gate.intervals.paired_change` requires."""
    return bleu_of_sums(sums)[:, 3]


def bleu(counts: Sequence[NgramCounts]) -> tuple[float, float, float, float]:
    """Return corpus BLEU-1..4 (Papineni et al. 2002) as in COCO's evaluation; it is not the mean of sentence scores.

    Precisions are computed from summed counts, without smoothing. BLEU-n is the geometric mean of the first n precisions. It is multiplied
    by the brevity penalty exp(1 - r/c) if the captions (c words) are shorter than their closest references (r words).

    There are two differences to other code. COCO's script adds 1e-15 to the matches, so its BLEU-4 without a matching 4-gram is about 1e-4;
    here it is 0. NLTK's `corpus_bleu` counts one n-gram in a caption that is too short for any, so its scores of short captions are lower.

    Args:
        counts: One entry per image, in any order.

    Returns:
        BLEU-1, -2, -3, -4 in 0..1; all 0 without images.
    """
    bleu1, bleu2, bleu3, bleu4 = bleu_of_sums(count_matrix(counts).sum(axis=0, keepdims=True))[0].tolist()
    return bleu1, bleu2, bleu3, bleu4
