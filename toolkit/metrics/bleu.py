"""BLEU over a set of captions: n-gram counts of every image go in, BLEU-1..4 come out.

Counting (`toolkit.metrics.ngrams`, where libraries may do it) and scoring (here, ours) are apart for two reasons. COCO's brevity
penalty compares with the reference closest in length, and HF `evaluate` with the shortest; and a corpus score is a function of
summed counts, so that the bootstrap can score thousands of resamples without counting again.

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
    """What one image adds to corpus BLEU."""

    matches: Four
    """N-grams of the hypothesis found in the references, each at most as often as in the one reference that has most of it."""
    totals: Four
    """N-grams of the hypothesis."""
    hypothesis_length: int
    """In words."""
    reference_length: int
    """In words, of the reference closest in length; of two equally close ones, the shorter."""


def count_matrix(counts: Sequence[NgramCounts]) -> npt.NDArray[np.float64]:
    """Lay counts out as f64[N,10], one row an image, for `bleu_of_sums` and the bootstrap; whole numbers, exact to 2**53."""
    rows = [(*one.matches, *one.totals, one.hypothesis_length, one.reference_length) for one in counts]
    return np.array(rows, dtype=np.float64).reshape(len(rows), 10)


def bleu_of_sums(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Score sets of images from their summed counts.

    Args:
        sums: f64[R,10], each row the sum of some rows of `count_matrix`.

    Returns:
        f64[R,4], BLEU-1..4 in 0..1; 0 where a precision is 0.
    """
    matches, totals, hypothesis, reference = sums[:, 0:4], sums[:, 4:8], sums[:, 8:9], sums[:, 9:10]
    with np.errstate(divide="ignore"):  # log 0 = -inf is the 0 that we want after exp
        log_precision = np.log(matches / np.maximum(totals, 1))
    log_mean = np.cumsum(log_precision, axis=1) / np.arange(1, 5)
    log_penalty = np.minimum(0, 1 - reference / np.maximum(hypothesis, 1))
    scores: npt.NDArray[np.float64] = np.exp(log_mean + log_penalty)
    return scores


def bleu4_of_sums(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Score sets of images f64[R,10] with BLEU-4 alone, f64[R]: the shape that `bootstrap.paired_change` takes."""
    return bleu_of_sums(sums)[:, 3]


def bleu(counts: Sequence[NgramCounts]) -> tuple[float, float, float, float]:
    """Score a set of captions as COCO does: corpus BLEU-1..4 (Papineni et al. 2002), not the mean of sentence scores.

    Precisions are of the summed counts, without smoothing; BLEU-n is the geometric mean of the first n, times the brevity penalty
    exp(1 - r/c) when the captions (c words) are shorter than their closest references (r words).

    COCO's own script adds 1e-15 to counts of matches, so that a BLEU-4 without any matching 4-gram is some 1e-4 or less; here it is 0.
    NLTK's `corpus_bleu` counts one n-gram in a caption too short to have any, which COCO does not, and so scores short ones lower.

    Args:
        counts: of the images, in any order.

    Returns:
        BLEU-1, -2, -3, -4 in 0..1; all 0 without images.
    """
    one, two, three, four = bleu_of_sums(count_matrix(counts).sum(axis=0, keepdims=True))[0].tolist()
    return one, two, three, four
