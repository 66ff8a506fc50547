"""CIDEr-D of a set of captions: words of hypotheses and references go in, one number in 0..10 per image comes out.

Vedantam et al. 2015, in the variant D and with the constants of COCO's caption evaluation. An n-gram counts the more, the fewer
images have it in their references, so an image's score depends on the whole set: scores of different sets do not compare, and a
single image scores 0 (every n-gram is in all images).

Two habits of COCO's script are kept, because published numbers have them. Length, for the penalty, is the number of bigrams. And
n = 1..4 weigh the same in the mean even when a caption is too short to have them, so a caption of three words cannot reach 10.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ORDERS = (1, 2, 3, 4)
SIGMA = 6.0
"""Width of the length penalty, in bigrams."""

_Ngram = tuple[str, ...]


@dataclass(frozen=True)
class _Vector:
    """A caption as tf-idf weights, for each n of ORDERS."""

    weights: list[dict[_Ngram, float]]
    norms: list[float]
    length: int
    """In bigrams."""


def cider_d(hypotheses: Sequence[list[str]], references: Sequence[Sequence[list[str]]]) -> list[float]:
    """Score each image's caption; the mean is the corpus score.

    Args:
        hypotheses: one caption's words per image.
        references: at least one reference's words per image, images in the same order.

    Returns:
        CIDEr-D per image, 0..10.
    """
    counted = [[_ngrams(reference) for reference in of_image] for of_image in references]
    images_with = Counter(ngram for of_image in counted for ngram in set().union(*of_image))
    rarity = {ngram: math.log(len(references) / images) for ngram, images in images_with.items()}
    unseen = math.log(max(1, len(references)))  # as if in one image

    scores = []
    for hypothesis, of_image in zip(hypotheses, counted, strict=True):
        vector = _vector(_ngrams(hypothesis), rarity, unseen)
        similar = [_similarity(vector, _vector(reference, rarity, unseen)) for reference in of_image]
        scores.append(10 * sum(similar) / len(similar))
    return scores


def _ngrams(words: list[str]) -> Counter[_Ngram]:
    return Counter(tuple(words[start : start + n]) for n in ORDERS for start in range(len(words) - n + 1))


def _vector(counts: Mapping[_Ngram, int], rarity: Mapping[_Ngram, float], unseen: float) -> _Vector:
    weights: list[dict[_Ngram, float]] = [{} for _ in ORDERS]
    for ngram, count in counts.items():
        weights[len(ngram) - 1][ngram] = count * rarity.get(ngram, unseen)
    norms = [math.sqrt(sum(weight**2 for weight in of_order.values())) for of_order in weights]
    return _Vector(weights, norms, length=sum(count for ngram, count in counts.items() if len(ngram) == 2))


def _similarity(hypothesis: _Vector, reference: _Vector) -> float:
    """Mean over n of the cosine, with the hypothesis' weights clipped to the reference's, times the length penalty."""
    cosines = 0.0
    for ours, theirs, our_norm, their_norm in zip(hypothesis.weights, reference.weights, hypothesis.norms, reference.norms, strict=True):
        if our_norm and their_norm:
            shared = sum(min(weight, theirs[ngram]) * theirs[ngram] for ngram, weight in ours.items() if ngram in theirs)
            cosines += shared / (our_norm * their_norm)
    penalty = math.exp(-((hypothesis.length - reference.length) ** 2) / (2 * SIGMA**2))
    return cosines / len(ORDERS) * penalty
