"""Score captions: captions and references of a set go in, per-image counts and scores come out."""

from collections.abc import Sequence
from dataclasses import dataclass

from toolkit.metrics.bleu import NgramCounts
from toolkit.metrics.cider import cider_d
from toolkit.metrics.ngrams import Count
from toolkit.metrics.ptb_words import words
from toolkit.metrics.rouge import rouge_l


@dataclass(frozen=True)
class Scores:
    """What one image adds to each metric."""

    ngrams: NgramCounts
    cider: float
    rouge_l: float


def score_captions(captions: Sequence[str], references: Sequence[Sequence[str]], count: Count) -> list[Scores]:
    """Score each caption; CIDEr-D's document frequencies are those of all references given."""
    hypotheses = [words(caption) for caption in captions]
    listed = [[words(reference) for reference in group] for group in references]
    ciders = cider_d(hypotheses, listed)
    return [
        Scores(count(hypothesis, group), cider, rouge_l(hypothesis, group))
        for hypothesis, group, cider in zip(hypotheses, listed, ciders, strict=True)
    ]
