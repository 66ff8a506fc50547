"""Divide questions about several images among runs in which each image has as many questions as the others."""

from collections.abc import Iterator

import numpy as np

from runtimes.decoding.session import Int64


def question_runs(images: Int64, *, one_by_one: bool) -> Iterator[tuple[Int64, Int64]]:
    """Yield the images and the questions of each run, as indices i64[B] and i64[R] in ascending order; R is a multiple of B.

    Args:
        images: i64[Q], the image of each question, in ascending order.
        one_by_one: One run for each question, for engines whose activations have one scale per run.
    """
    if one_by_one:
        yield from ((images[index : index + 1], np.array([index])) for index in range(len(images)))
        return
    distinct, counts = np.unique(images, return_counts=True)
    for count in np.unique(counts):
        chosen = distinct[counts == count]
        yield chosen, np.flatnonzero(np.isin(images, chosen))
