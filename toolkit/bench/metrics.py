"""Score captions: captions and references of a set go in, per-picture counts and scores come out."""

from collections.abc import Sequence
from dataclasses import dataclass

from toolkit.bench.bleu import NgramCounts
from toolkit.bench.cider import cider_d
from toolkit.bench.ngrams import Count
from toolkit.bench.rouge import rouge_l
from toolkit.bench.words import words


@dataclass(frozen=True)
class Scores:
    """What one picture adds to each metric."""

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
