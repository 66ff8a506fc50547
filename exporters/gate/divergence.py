"""The Kullback-Leibler divergence of an artifact's next-token distributions from those of the FP32 model, by teacher forcing.

Drift is the change in probability of the reference's token only. The divergence includes all other tokens of the vocabulary, so it also
shows a change that leaves the references as likely as before (Dutta et al. 2024, arXiv 2407.09141).
"""

import numpy as np

from exporters.gate.intervals import Float64
from runtimes.decoding.session import Float32


def kl_divergence(reference: Float32, other: Float32) -> Float64:
    """Return KL(reference || other) of each token in nat, f64[T].

    Args:
        reference: f32[T,V], the FP32 model's natural-log probabilities of the vocabulary at T tokens.
        other: f32[T,V], those of the artifact at the same tokens.
    """
    expected = reference.astype(np.float64)
    divergence = (np.exp(expected) * (expected - other)).sum(axis=-1)
    return np.asarray(np.maximum(divergence, 0))  # it is never negative; rounding makes that of equal distributions -1e-8
