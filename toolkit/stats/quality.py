"""Compute the scores of a case, and their changes relative to the baseline on the same images.

Intervals of changes are paired bootstrap 95 % confidence intervals over images; the questions about one image are one unit. Only drift
decides on the verdict, and for a matcher the change of its scores and ranks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from exporters.gate.drift import measure_drift, summed_by
from exporters.gate.intervals import Change, Float64, Score, finite, paired_change, share_interval, total
from exporters.gate.retrieval import TOP
from exporters.gate.verdict import judge
from toolkit.metrics.bleu import NgramCounts, bleu, bleu4_of_sums, count_matrix
from toolkit.records.image_quality import ImageQuality
from toolkit.records.record import Subject
from toolkit.stats.retrieval import hits_of_images, hits_of_texts, matching_changes, share_of_hits


@dataclass(frozen=True, kw_only=True)
class ScoreSpec:
    """A score that is computed from sums over samples."""

    measured: Callable[[ImageQuality], bool]
    """Whether a sample has it."""
    rows: Callable[[Sequence[ImageQuality]], Float64]
    """f64[N,K], the contribution of each sample to the sums that `score` takes. A mean has one sum."""
    score: Score = total
    """Sums f64[R,K] → scores f64[R]."""

    def value(self, samples: Sequence[ImageQuality]) -> float:
        """Return the score of samples."""
        rows = self.rows(samples)
        return fmean(rows[:, 0]) if self.score is total else float(self.score(rows.sum(axis=0, keepdims=True))[0])


def _mean(field: str) -> ScoreSpec:
    return ScoreSpec(
        measured=lambda image: getattr(image, field) is not None, rows=lambda samples: _values(samples, field).reshape(len(samples), 1)
    )


def _recall(hits: Callable[[ImageQuality, int], tuple[int, int]], k: int) -> ScoreSpec:
    return ScoreSpec(
        measured=lambda image: image.retrieval is not None,
        rows=lambda samples: np.array([hits(image, k) for image in samples], dtype=np.float64),
        score=share_of_hits,
    )


SCORES = {
    "bleu4": ScoreSpec(
        measured=lambda image: image.matches is not None,
        rows=lambda samples: count_matrix([_counts(image) for image in samples]),
        score=bleu4_of_sums,
    ),
    "cider": _mean("cider"),
    "rouge_l": _mean("rouge_l"),
    "vqa_accuracy": _mean("vqa_accuracy"),
    **{f"image_recall_{k}": _recall(hits_of_images, k) for k in TOP},
    **{f"text_recall_{k}": _recall(hits_of_texts, k) for k in TOP},
}
"""Key of a row → score. A record has those of its task. A row also has the relative change of each: `<key>_change`, with its interval."""


def scores(quality: Sequence[ImageQuality]) -> dict[str, Any]:
    """Return the scores that samples have; an empty dict without scored samples."""
    row: dict[str, Any] = {}
    for key, spec in SCORES.items():
        if scored := [image for image in quality if image.error is None and spec.measured(image)]:
            row[key] = spec.value(scored)
    if counted := [image for image in quality if image.matches is not None]:
        row["bleu1"], row["bleu2"], row["bleu3"], row["bleu4"] = bleu([_counts(image) for image in counted])
    return row


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


def changes(quality: Sequence[ImageQuality], baseline: Sequence[ImageQuality], subject: Subject | None = None) -> dict[str, Any]:
    """Return agreement, changes of scores, drift, divergence and the verdict over the samples that both cases could use.

    Args:
        quality: The samples of the case.
        baseline: The same samples of the case that it is compared with.
        subject: What the case ran, for its limits; None: no limits of a recipe.

    Returns:
        Keys of a row. The dict is empty if no sample has a text of both. Without log-probabilities or ranks there is no verdict.
    """
    both = [(a, b) for a, b in zip(quality, baseline, strict=True) if a.error is None and b.error is None] if quality and baseline else []
    if not both:
        return {}
    equal = sum(a.caption == b.caption for a, b in both)
    row: dict[str, Any] = {"exact_match": equal / len(both)}
    row["exact_match_low"], row["exact_match_high"] = share_interval(equal, len(both))
    for key, spec in SCORES.items():
        if scored := [(a, b) for a, b in both if spec.measured(a) and spec.measured(b)]:
            case, base = [a for a, _ in scored], [b for _, b in scored]
            row |= _change(key, paired_change(_per_image(case, spec.rows(case)), _per_image(base, spec.rows(base)), spec.score))
    if scored := [(a, b) for a, b in both if a.retrieval is not None and b.retrieval is not None]:
        return row | matching_changes(scored, subject if quality is not baseline else None)
    if not all(image.log_probability is not None for pair in both for image in pair):
        return row
    case, base = [a for a, _ in both], [b for _, b in both]
    decreases = _values(base, "log_probability") - _values(case, "log_probability")
    drift = measure_drift(*_per_image(case, np.stack([decreases, _values(base, "scored_tokens")], axis=1)).T)
    row |= {"drift": drift.nat, "drift_low": finite(drift.low), "drift_high": finite(drift.high)}
    if quality is not baseline:
        row |= _divergence(case)
        judgement = judge(drift, subject.drift_limit_nat if subject else None)
        row |= {"verdict": judgement.verdict, "verdict_text": judgement.text, "images_needed": judgement.images_needed}
    return row


def _per_image(samples: Sequence[ImageQuality], rows: Float64) -> Float64:
    """Return the sums of rows f64[N,K] over the questions about each image; captions are one row per image already."""
    if all(image.question is None for image in samples):
        return rows
    return summed_by([image.file for image in samples], rows)


def _divergence(case: Sequence[ImageQuality]) -> dict[str, Any]:
    """Return the mean divergence per token, over the images that have one; records of older versions have none."""
    known = [image for image in case if image.kl_divergence is not None]
    if not known:
        return {}
    rows = np.stack([_values(known, "kl_divergence"), _values(known, "scored_tokens")], axis=1)
    mean = measure_drift(*_per_image(known, rows).T)
    return {"kl": mean.nat, "kl_low": finite(mean.low), "kl_high": finite(mean.high)}


def _change(name: str, change: Change) -> dict[str, Any]:
    return {f"{name}_change": change.change, f"{name}_change_low": change.low, f"{name}_change_high": change.high}


def _values(images: Sequence[ImageQuality], field: str) -> Float64:
    return np.array([getattr(image, field) or 0.0 for image in images], dtype=np.float64)
