"""Ranks of images for texts, and recall at k: the usual figures of text-to-image retrieval."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

TOP = (1, 5)
"""The values of k that are reported."""


def ranks(scores: NDArray[Any], own: Sequence[int]) -> NDArray[np.int64]:
    """Return for each text the number of images with a higher score than its own image, i64[T].

    Args:
        scores: f[I,T], score of each image and text.
        own: Index of each text's image.
    """
    of_own = scores[np.asarray(own), np.arange(scores.shape[1])]
    return np.asarray((scores > of_own).sum(axis=0), dtype=np.int64)


def recall(text_ranks: NDArray[np.int64], k: int) -> float:
    """Return the share of texts whose image is among the k best."""
    return float((text_ranks < k).mean())
