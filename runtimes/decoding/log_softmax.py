"""Natural-log probabilities of logits, in numpy."""

import numpy as np

from runtimes.decoding.session import Float32


def log_softmax(logits: Float32) -> Float32:
    """Return natural-log probabilities f32[..., V] of logits f32[..., V]."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return np.asarray(shifted)


def log_sum_exp(logits: Float32) -> Float32:
    """Return the log of the sum of exponentials f32[R] of logits f32[R,V]."""
    top = logits.max(axis=-1)
    return np.asarray(top + np.log(np.exp(logits - top[:, None]).sum(axis=-1)), dtype=np.float32)
