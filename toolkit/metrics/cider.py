"""Compute CIDEr-D of a set of captions (Vedantam et al. 2015), with the constants of COCO's caption evaluation.

The weight of an n-gram rises with its rarity over the references of all images. The score of an image therefore depends on the whole set.
Scores of different sets cannot be compared. A set of one image scores 0, because every n-gram occurs in all images.

Two properties of COCO's script are kept, because published scores have them. The length in the length penalty is the number of bigrams. The
mean is taken over n = 1..4 even if a caption has no 4-gram, so a caption of three words scores less than 10.
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
    """The tf-idf weights of a caption, for each n of ORDERS."""

    weights: list[dict[_Ngram, float]]
    norms: list[float]
    length: int
    """In bigrams."""


def cider_d(hypotheses: Sequence[list[str]], references: Sequence[Sequence[list[str]]]) -> list[float]:
    """Score each image's caption; the mean is the corpus score.

    Args:
        hypotheses: The caption of each image as words.
        references: At least one reference of each image as words, in the same order.

    Returns:
        CIDEr-D per image, 0..10.
    """
    counted = [[_ngrams(reference) for reference in of_image] for of_image in references]
    images_with = Counter(ngram for of_image in counted for ngram in set().union(*of_image))
    rarity = {ngram: math.log(len(references) / images) for ngram, images in images_with.items()}
    unseen = math.log(max(1, len(references)))  # an n-gram that no reference has weighs as much as one in a single image

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
    """Return the mean over n of the cosine, times the length penalty; weights of the hypothesis are clipped to the reference's."""
    cosines = 0.0
    for weights, limits, norm, limit_norm in zip(hypothesis.weights, reference.weights, hypothesis.norms, reference.norms, strict=True):
        if norm and limit_norm:
            shared = sum(min(weight, limits[ngram]) * limits[ngram] for ngram, weight in weights.items() if ngram in limits)
            cosines += shared / (norm * limit_norm)
    penalty = math.exp(-((hypothesis.length - reference.length) ** 2) / (2 * SIGMA**2))
    return cosines / len(ORDERS) * penalty
