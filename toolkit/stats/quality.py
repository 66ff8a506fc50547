"""Compute the scores of a case, and their changes relative to the baseline on the same images.

Intervals of changes are paired bootstrap 95 % confidence intervals over images.
"""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np

from exporters.gate.gate import drift_of_sums
from exporters.gate.intervals import Change, interval, paired_change
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


def changes(quality: Sequence[ImageQuality], baseline: Sequence[ImageQuality]) -> dict[str, Any]:
    """Return agreement, changes of scores, drift and the verdict over the images that both cases captioned.

    The dict is empty if there is no such image. Without drift a verdict can be a loss, but not "no clear loss".
    """
    both = [(a, b) for a, b in zip(quality, baseline, strict=True) if a.error is None and b.error is None] if quality and baseline else []
    if not both:
        return {}
    row: dict[str, Any] = {"exact_match": fmean(a.caption == b.caption for a, b in both)}
    scored = [(a, b) for a, b in both if a.matches is not None and b.matches is not None]
    if not scored:
        return row
    case, base = [a for a, _ in scored], [b for _, b in scored]
    row |= _change("bleu4", paired_change(count_matrix([*map(_counts, case)]), count_matrix([*map(_counts, base)]), bleu4_of_sums))
    row |= _change("cider", paired_change(_values(case, "cider"), _values(base, "cider")))
    row |= _change("rouge_l", paired_change(_values(case, "rouge_l"), _values(base, "rouge_l")))
    losses = [name for name in ("bleu4", "cider", "rouge_l") if (row[f"{name}_change_high"] or 0) < 0]
    scored_both = all(image.log_probability is not None for pair in scored for image in pair)
    if scored_both:
        falls = _values(base, "log_probability") - _values(case, "log_probability")
        sums = np.stack([falls, _values(base, "scored_tokens")], axis=1)
        row["drift"] = float(drift_of_sums(sums.sum(axis=0, keepdims=True))[0])
        row["drift_low"], row["drift_high"] = interval(sums, drift_of_sums)
        losses += ["drift"] if row["drift_low"] > 0 else []
    if losses:
        row["verdict"] = f"loss: {', '.join(losses)}"
    elif scored_both:
        row["verdict"] = "no clear loss"
    if quality is baseline:
        row["verdict"] = None
    return row


def _change(name: str, change: Change) -> dict[str, Any]:
    return {f"{name}_change": change.change, f"{name}_change_low": change.low, f"{name}_change_high": change.high}


def _values(images: Sequence[ImageQuality], field: str) -> "np.ndarray[Any, np.dtype[np.float64]]":
    return np.array([getattr(image, field) or 0.0 for image in images], dtype=np.float64)
