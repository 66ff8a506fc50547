"""Log-probabilities of given texts by teacher forcing: the model gets the given tokens, not those it would have chosen."""

from collections.abc import Sequence

import numpy as np

from runtimes.decoding.log_softmax import log_softmax
from runtimes.decoding.session import Float32, Inputs, Session


def score_sequences(session: Session, inputs: Inputs, ids: Sequence[Sequence[int]], pad_id: int) -> Float32:
    """Return the natural-log probabilities f32[K] of K texts for one input.

    Args:
        session: A session with the capability "score".
        inputs: One image: {"pixels": f32[1,3,H,W]}.
        ids: Token ids of each text, start and end token included.
        pad_id: Padding on the right of shorter texts. No token attends to it, since the decoder is causal.
    """
    width = max(map(len, ids)) - 1
    fed = np.full((len(ids), width), pad_id, dtype=np.int64)
    for row, sequence in enumerate(ids):
        fed[row, : len(sequence) - 1] = sequence[:-1]
    state = session.encode(inputs)
    state = session.select(state, np.zeros(len(ids), dtype=np.int64), np.zeros(1, dtype=np.int64))
    logits, _ = session.step(fed, state, np.arange(width, dtype=np.int64))
    scores = np.zeros(len(ids), dtype=np.float32)
    for row, sequence in enumerate(ids):
        targets = np.array(sequence[1:])
        scores[row] = log_softmax(logits[row, : len(targets)])[np.arange(len(targets)), targets].sum()
    return scores
