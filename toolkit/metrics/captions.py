"""Compute the metrics of each caption in a set."""

from collections.abc import Sequence
from dataclasses import dataclass

from toolkit.metrics.bleu import NgramCounts
from toolkit.metrics.cider import cider_d
from toolkit.metrics.ngrams import Count
from toolkit.metrics.ptb_words import words
from toolkit.metrics.rouge import rouge_l


@dataclass(frozen=True)
class Scores:
    """The counts and scores of one image."""

    ngrams: NgramCounts
    cider: float
    rouge_l: float


def score_captions(captions: Sequence[str], references: Sequence[Sequence[str]], count: Count) -> list[Scores]:
    """Score each caption.

    Args:
        captions: One per image.
        references: At least one per image. CIDEr-D takes its document frequencies from all of them.
        count: Counts n-grams for BLEU.
    """
    hypotheses = [words(caption) for caption in captions]
    reference_words = [[words(reference) for reference in group] for group in references]
    ciders = cider_d(hypotheses, reference_words)
    return [
        Scores(count(hypothesis, group), cider, rouge_l(hypothesis, group))
        for hypothesis, group, cider in zip(hypotheses, reference_words, ciders, strict=True)
    ]
