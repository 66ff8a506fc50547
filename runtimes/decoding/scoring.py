"""Log-probabilities of given texts by teacher forcing: the model gets the given tokens, not those it would have chosen."""

from collections.abc import Sequence

import numpy as np

from runtimes.decoding.log_softmax import log_softmax
from runtimes.decoding.session import Float32, Session, State


def token_log_probabilities(session: Session, state: State, ids: Sequence[Sequence[int]], pad_id: int) -> list[Float32]:
    """Return the natural-log probabilities of the whole vocabulary at every token of K texts about one image or question.

    Args:
        session: A session with the capability "score".
        state: Of one row without tokens; it must not be used afterwards.
        ids: Token ids of each text, start and end token included.
        pad_id: Padding on the right of shorter texts. No token attends to it, since the decoder is causal.

    Returns:
        For each text, f32[T,V]: row t belongs to the text's token t + 1. T is the number of its tokens without the start token.
    """
    width = max(map(len, ids)) - 1
    fed = np.full((len(ids), width), pad_id, dtype=np.int64)
    for row, sequence in enumerate(ids):
        fed[row, : len(sequence) - 1] = sequence[:-1]
    state = session.select(state, np.zeros(len(ids), dtype=np.int64), np.zeros(1, dtype=np.int64))
    logits, _ = session.step(fed, state, np.arange(width, dtype=np.int64))
    return [log_softmax(logits[row, : len(sequence) - 1]) for row, sequence in enumerate(ids)]


def sequence_log_probability(log_probabilities: Float32, ids: Sequence[int]) -> float:
    """Return the natural-log probability of one text.

    Args:
        log_probabilities: f32[T,V] of `token_log_probabilities`.
        ids: T + 1 token ids, start and end token included.
    """
    targets = np.array(ids[1:])
    return float(log_probabilities[np.arange(len(targets)), targets].sum())
