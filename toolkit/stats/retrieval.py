"""Compute the figures of matchers from records: recall, and the changes of scores and ranks relative to the baseline."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from exporters.gate.intervals import Float64, finite, interval, share_interval
from exporters.gate.matching_limits import Measured, judge_matching, limits_of
from exporters.gate.retrieval import TOP
from toolkit.records.image_quality import ImageQuality, Retrieval
from toolkit.records.record import Subject


def hits_of_images(image: ImageQuality, k: int) -> tuple[int, int]:
    """Return the number of an image's texts that rank it among the k best images, and the number of its texts."""
    ranks = _retrieval(image).image_ranks
    return sum(rank < k for rank in ranks), len(ranks)


def hits_of_texts(image: ImageQuality, k: int) -> tuple[int, int]:
    """Return 1 if one of an image's texts is among the k best texts for it, else 0; and 1."""
    return int(_retrieval(image).text_rank < k), 1


def share_of_hits(sums: Float64) -> Float64:
    """Return the share f64[R] of sums f64[R,2]: hits, number of trials."""
    return np.asarray(sums[:, 0] / sums[:, 1])


def matching_changes(pairs: Sequence[tuple[ImageQuality, ImageQuality]], subject: Subject | None) -> dict[str, Any]:
    """Return the changes of a matcher's scores and ranks from the baseline's, and the verdict.

    Args:
        pairs: Each image of the case and of the baseline.
        subject: What the case ran; None for the baseline itself, which has no verdict.

    Returns:
        Keys of a row: the mean difference of each score with its interval; `agreement_<k>`, the share of texts whose best image by the
        baseline is among the k best of the case, with the interval of a share of as many images; and the verdict.
    """
    of_both = [(_retrieval(a), _retrieval(b)) for a, b in pairs]
    changes = {
        "similarity": _measured([_mean_difference(a.similarities, b.similarities) for a, b in of_both]),
        "probability": _measured([_mean_difference(a.probabilities, b.probabilities) for a, b in of_both]),
    }
    agreement = {k: _agreement(of_both, k) for k in TOP}
    row: dict[str, Any] = {}
    for name, each in (
        *((f"{name}_change", each) for name, each in changes.items()),
        *((f"agreement_{k}", each) for k, each in agreement.items()),
    ):
        row |= {name: each.value, f"{name}_low": finite(each.low), f"{name}_high": finite(each.high)}
    if subject is None:
        return row
    limits = limits_of(subject.precision, approximate=subject.approximate)
    judgement = judge_matching(list(changes.values()), agreement, limits, len(pairs))
    return row | {"score_limit": limits.score, "verdict": judgement.verdict, "verdict_text": judgement.text}


def _retrieval(image: ImageQuality) -> Retrieval:
    assert image.retrieval is not None
    return image.retrieval


def _mean_difference(scores: Sequence[float], others: Sequence[float]) -> float:
    return float(np.abs(np.subtract(scores, others)).mean())


def _measured(values: Sequence[float]) -> Measured:
    low, high = interval(np.array(values))
    return Measured(value=float(np.mean(values)), low=low, high=high)


def _agreement(pairs: Sequence[tuple[Retrieval, Retrieval]], k: int) -> Measured:
    agree = [best[0] in own[:k] for a, b in pairs for own, best in zip(a.best_images, b.best_images, strict=True)]
    share = float(np.mean(agree))
    low, high = share_interval(round(share * len(pairs)), len(pairs))  # the texts of an image are not independent
    return Measured(value=share, low=low, high=high)
