"""Make the predictions of a draft table from token ids of captions."""

from collections.abc import Sequence

from runtimes.decoding.drafts.draft_table import MAX_ENTRIES
from runtimes.decoding.drafts.drafter import MIN_CONFIDENCE
from runtimes.decoding.drafts.ngrams import MAX_CONTEXT, Context, ContextCounts, Prediction, longest_match

MAX_COUNTED = 1_000_000
"""Largest number of contexts that are counted, about 400 MB."""
SAME_CONFIDENCE = 0.1
"""A context is redundant if its shorter context predicts the same token with a confidence that differs by less."""
FOLDS = 4


def make_predictions(texts: Sequence[Sequence[int]], eos_id: int) -> dict[Context, Prediction]:
    """Return the predictions that change what is drafted, at most `MAX_ENTRIES`: those of the most frequent contexts.

    Args:
        texts: Token ids of captions, start and end token included.
        eos_id: Id of the end token, which is never drafted.
    """
    counts, reliability = _count(texts), measure_reliability(texts, eos_id)
    occurrences = dict(counts)
    predictions: dict[Context, Prediction] = {}
    for context in sorted(occurrences, key=lambda context: (len(context), context)):
        counted, shorter = counts.predict(context), longest_match(predictions, context[1:])
        assert counted is not None
        prediction = (counted[0], counted[1] * reliability)
        used = _drafted(prediction, eos_id) or _drafted(shorter, eos_id)
        if used and (shorter is None or prediction[0] != shorter[0] or abs(prediction[1] - shorter[1]) >= SAME_CONFIDENCE):
            predictions[context] = prediction
    if len(predictions) <= MAX_ENTRIES:
        return predictions
    kept = sorted(predictions, key=lambda context: (-occurrences[context], context))[:MAX_ENTRIES]
    return {context: predictions[context] for context in kept}


def measure_reliability(texts: Sequence[Sequence[int]], eos_id: int) -> float:
    """Return the share of right drafted tokens divided by their mean confidence, at most 1, by cross-validation over the texts.

    Texts without regularity, for example shuffled words, have predictions that are confident by chance. Their reliability is low, so that
    nothing is drafted.
    """
    right = expected = 0.0
    for fold in range(FOLDS):
        counts = _count([ids for number, ids in enumerate(texts) if number % FOLDS != fold])
        for ids in texts[fold::FOLDS]:
            for position in range(1, len(ids)):
                prediction = counts.predict(tuple(ids[max(0, position - MAX_CONTEXT) : position]))
                if prediction is not None and _drafted(prediction, eos_id):
                    right, expected = right + (prediction[0] == ids[position]), expected + prediction[1]
    return min(1.0, right / expected) if expected else 0.0


def _count(texts: Sequence[Sequence[int]]) -> ContextCounts:
    counts = ContextCounts(max_contexts=MAX_COUNTED)
    for ids in texts:
        counts.add(ids)
    return counts


def _drafted(prediction: Prediction | None, eos_id: int) -> bool:
    """Return whether a prediction can be part of a draft."""
    return prediction is not None and prediction[0] != eos_id and prediction[1] >= MIN_CONFIDENCE
