"""The divergence of two sets of distributions: against a loop in Python, and in cases with a known value."""

import math

import numpy as np
import pytest

from exporters.gate.divergence import kl_divergence


def log_probabilities(seed, tokens=4, vocabulary=9):
    logits = np.random.default_rng(seed).normal(0, 3, (tokens, vocabulary))
    return (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float32)


def test_the_divergence_equals_a_loop():
    a, b = log_probabilities(1), log_probabilities(2)
    expected = [sum(math.exp(p) * (p - q) for p, q in zip(map(float, x), map(float, y), strict=True)) for x, y in zip(a, b, strict=True)]
    assert kl_divergence(a, b) == pytest.approx(expected, rel=1e-9)
    assert kl_divergence(a, b) != pytest.approx(kl_divergence(b, a)), "it is not symmetric"


def test_known_values():
    certain, even = np.log(np.array([[1 - 1e-30, 1e-30]])), np.log(np.array([[0.5, 0.5]]))
    assert kl_divergence(certain, even) == pytest.approx([math.log(2)])
    assert kl_divergence(even, even).tolist() == [0.0]


def test_rounding_does_not_make_it_negative():
    a = log_probabilities(3, tokens=200, vocabulary=5000)
    b = np.nextafter(a, np.float32(0))
    assert (kl_divergence(a, b) >= 0).all()
