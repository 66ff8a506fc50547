"""ROUGE-L of one caption: its words and its references' words go in, a number in 0..1 comes out.

Lin 2004 (ROUGE) by way of COCO's caption evaluation, which differs from the paper and from most packages: the best precision and
the best recall are taken over the references, each for itself, so that they may come from two of them.
"""

from collections.abc import Sequence

BETA = 1.2
"""Weight of recall against precision, COCO's value."""


def rouge_l(hypothesis: list[str], references: Sequence[list[str]]) -> float:
    """Score one caption by its longest common subsequences with the references; the mean over images is the corpus score.

    Args:
        hypothesis: its words.
        references: the words of each, at least one.

    Returns:
        F-measure in 0..1; 0 when no word is shared.
    """
    common = [common_words(hypothesis, reference) for reference in references]
    if not any(common):
        return 0.0
    precision = max(common) / len(hypothesis)
    recall = max(length / len(reference) for length, reference in zip(common, references, strict=True) if reference)
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def common_words(left: list[str], right: list[str]) -> int:
    """Count the words of the longest sequence that both have in this order, with gaps or without."""
    best = [0] * (len(right) + 1)  # best[i]: for the words of `left` so far, and the first i of `right`
    for word in left:
        diagonal = 0
        for position, other in enumerate(right, start=1):
            above = best[position]
            best[position] = diagonal + 1 if word == other else max(above, best[position - 1])
            diagonal = above
    return best[-1]
