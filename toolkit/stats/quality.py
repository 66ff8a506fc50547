"""Compute the scores of a case, and their changes relative to the baseline on the same images.

Intervals of changes are paired bootstrap 95 % confidence intervals over images. Only drift decides on the verdict.
"""

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np

from exporters.gate.drift import measure_drift
from exporters.gate.intervals import Change, paired_change, share_interval
from exporters.gate.verdict import judge
from toolkit.metrics.bleu import NgramCounts, bleu, bleu4_of_sums, count_matrix
from toolkit.records.record import ImageQuality


def scores(quality: Sequence[ImageQuality]) -> dict[str, Any]:
    """Return BLEU, CIDEr-D and ROUGE-L of the scored images; an empty dict without scored images."""
    scored = [image for image in quality if image.matches is not None]
    if not scored:
        return {}
    bleu1, bleu2, bleu3, bleu4 = bleu([_counts(image) for image in scored])
    return {
        "bleu1": bleu1,
        "bleu2": bleu2,
        "bleu3": bleu3,
        "bleu4": bleu4,
        "cider": fmean(image.cider or 0.0 for image in scored),
        "rouge_l": fmean(image.rouge_l or 0.0 for image in scored),
    }


def _counts(image: ImageQuality) -> NgramCounts:
    assert image.matches is not None
    assert image.totals is not None
    assert image.hypothesis_length is not None
    assert image.reference_length is not None
    return NgramCounts(
        matches=image.matches,
        totals=image.totals,
        hypothesis_length=image.hypothesis_length,
        reference_length=image.reference_length,
    )


def changes(quality: Sequence[ImageQuality], baseline: Sequence[ImageQuality], limit_nat: float | None = None) -> dict[str, Any]:
    """Return agreement, changes of scores, drift, divergence and the verdict over the images that both cases captioned.

    Args:
        quality: The images of the case.
        baseline: The same images of the case that it is compared with.
        limit_nat: Maximum drift of the recipe, see `exporters.gate.verdict.judge`.

    Returns:
        Keys of a row. The dict is empty if no image has a caption of both. Without log-probabilities there is no verdict.
    """
    both = [(a, b) for a, b in zip(quality, baseline, strict=True) if a.error is None and b.error is None] if quality and baseline else []
    if not both:
        return {}
    equal = sum(a.caption == b.caption for a, b in both)
    row: dict[str, Any] = {"exact_match": equal / len(both)}
    row["exact_match_low"], row["exact_match_high"] = share_interval(equal, len(both))
    scored = [(a, b) for a, b in both if a.matches is not None and b.matches is not None]
    if not scored:
        return row
    case, base = [a for a, _ in scored], [b for _, b in scored]
    row |= _change("bleu4", paired_change(count_matrix([*map(_counts, case)]), count_matrix([*map(_counts, base)]), bleu4_of_sums))
    row |= _change("cider", paired_change(_values(case, "cider"), _values(base, "cider")))
    row |= _change("rouge_l", paired_change(_values(case, "rouge_l"), _values(base, "rouge_l")))
    if not all(image.log_probability is not None for pair in scored for image in pair):
        return row
    drift = measure_drift(_values(base, "log_probability") - _values(case, "log_probability"), _values(base, "scored_tokens"))
    row |= {"drift": drift.nat, "drift_low": _finite(drift.low), "drift_high": _finite(drift.high)}
    if quality is not baseline:
        row |= _divergence(case)
        judgement = judge(drift, limit_nat)
        row |= {"verdict": judgement.verdict, "verdict_text": judgement.text, "images_needed": judgement.images_needed}
    return row


def _divergence(case: Sequence[ImageQuality]) -> dict[str, Any]:
    """Return the mean divergence per token, over the images that have one; records of older versions have none."""
    known = [image for image in case if image.kl_divergence is not None]
    if not known:
        return {}
    mean = measure_drift(_values(known, "kl_divergence"), _values(known, "scored_tokens"))
    return {"kl": mean.nat, "kl_low": _finite(mean.low), "kl_high": _finite(mean.high)}


def _finite(bound: float) -> float | None:
    return bound if math.isfinite(bound) else None


def _change(name: str, change: Change) -> dict[str, Any]:
    return {f"{name}_change": change.change, f"{name}_change_low": change.low, f"{name}_change_high": change.high}


def _values(images: Sequence[ImageQuality], field: str) -> "np.ndarray[Any, np.dtype[np.float64]]":
    return np.array([getattr(image, field) or 0.0 for image in images], dtype=np.float64)
