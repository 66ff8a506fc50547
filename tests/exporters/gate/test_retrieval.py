"""Ranks and recall, against values computed by hand."""

import numpy as np

from exporters.gate.retrieval import ranks, recall

SCORES = np.array([[0.9, 0.1, 0.5, 0.2], [0.1, 0.2, 0.7, 0.2], [0.3, 0.8, 0.6, 0.1]])


def test_ranks_count_the_images_with_higher_scores():
    assert ranks(SCORES, [0, 1, 2, 1]).tolist() == [0, 1, 1, 0]
    assert ranks(SCORES, [1, 0, 0, 2]).tolist() == [2, 2, 2, 2]


def test_recall_is_the_share_of_texts_within_k():
    text_ranks = np.array([0, 1, 4, 5])
    assert [recall(text_ranks, k) for k in (1, 2, 5, 6)] == [0.25, 0.5, 0.75, 1]
