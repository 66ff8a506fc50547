"""The divergence through files equals that of the distributions in memory."""

import numpy as np
import pytest

from exporters.gate.divergence import kl_divergence
from runtimes.decoding.log_softmax import log_softmax
from toolkit.bench.distributions import Distributions, temporary_folder


def rows(seed, lengths=(4, 7), vocabulary=3000, noise=0.0):
    random = np.random.default_rng(seed)
    logits = [random.normal(0, 3, (tokens, vocabulary)) for tokens in lengths]
    other = np.random.default_rng(99)
    return [log_softmax((values + other.normal(0, noise, values.shape)).astype(np.float32)) for values in logits]


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.5])
def test_the_divergence_of_stored_distributions(tmp_path, noise):
    stored, other = rows(1), rows(1, noise=noise)
    Distributions(tmp_path).store(0, stored)
    expected = sum(float(kl_divergence(a, b).sum()) for a, b in zip(stored, other, strict=True))
    assert Distributions(tmp_path).divergence(0, other) == pytest.approx(expected, abs=11 * 1e-5), "FP16 costs less than 1e-5 a token"


def test_unknown_images_and_other_vocabularies_have_none(tmp_path):
    Distributions(tmp_path).store(0, rows(1))
    assert Distributions(tmp_path).divergence(1, rows(1)) is None
    assert Distributions(tmp_path).divergence(0, rows(1, vocabulary=2999)) is None
    assert Distributions(tmp_path).divergence(0, rows(1, lengths=(4, 6))) is None


def test_the_folder_is_limited_to_the_first_images(tmp_path):
    size = 11 * 3000 * 2
    distributions = Distributions(tmp_path, max_bytes=2 * size)
    for index, lengths in enumerate([(4, 7), (4, 7), (4, 7), (1, 1)]):
        distributions.store(index, rows(index, lengths))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["0.npy", "1.npy"]


def test_a_folder_that_cannot_be_written_costs_only_this_figure(tmp_path, monkeypatch):
    Distributions(tmp_path / "missing").store(0, rows(1))
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with temporary_folder() as folder:
        assert folder is None
