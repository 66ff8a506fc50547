"""Compute ROUGE-L of one caption (Lin 2004) as in COCO's caption evaluation.

COCO's evaluation differs from the paper and from most packages: it takes the best precision and the best recall over the references
separately, so they may come from two references.
"""

from collections.abc import Sequence

BETA = 1.2
"""Weight of recall relative to precision; COCO's value."""


def rouge_l(hypothesis: list[str], references: Sequence[list[str]]) -> float:
    """Return the score of one caption; the corpus score is the mean over images.

    Args:
        hypothesis: The words of the caption.
        references: The words of each reference; at least one.

    Returns:
        F-measure in 0..1; 0 without a common word.
    """
    common = [common_words(hypothesis, reference) for reference in references]
    if not any(common):
        return 0.0
    precision = max(common) / len(hypothesis)
    recall = max(length / len(reference) for length, reference in zip(common, references, strict=True) if reference)
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def common_words(left: list[str], right: list[str]) -> int:
    """Return the length of the longest common subsequence."""
    best = [0] * (len(right) + 1)  # best[i]: for the words of `left` so far and the first i words of `right`
    for word in left:
        diagonal = 0
        for position, other in enumerate(right, start=1):
            above = best[position]
            best[position] = diagonal + 1 if word == other else max(above, best[position - 1])
            diagonal = above
    return best[-1]
