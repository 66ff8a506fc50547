"""The baseline gets exactly the pixels of an artifact, whatever the height of the image."""

import numpy as np
import pytest
from PIL import Image

from exporters.families.blip_reference import HfCaptioner
from exporters.gate.divergence import kl_divergence
from runtimes.errors import RequestError
from runtimes.loading import load

REFERENCES = ["a red circle", "two squares"]


@pytest.fixture(scope="module")
def baseline(tiny_checkpoint):
    return HfCaptioner(tiny_checkpoint, threads=1)


@pytest.fixture(scope="module")
def captioner(tiny_artifacts):
    return load(tiny_artifacts["onnx-fp32"], device="cpu", threads=1)


@pytest.mark.parametrize("size", [(40, 1), (40, 3), (1, 1), (3, 3), (1, 40), (3, 40), (40, 4)], ids=str)
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_pixels_of_low_images(baseline, captioner, size, mode):
    channels = len(Image.new(mode, (1, 1)).getbands())
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)
    image = Image.fromarray(values.squeeze(2) if channels == 1 else values, mode)
    (expected,) = baseline.score([image], captions=[REFERENCES])
    (scores,) = captioner.score([image], captions=[REFERENCES])
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    assert baseline.caption([image], max_length=8)[0].token_ids == captioner.caption(image, max_length=8)[0].token_ids


def test_distributions_of_every_token_equal_the_baselines(baseline, captioner, drawn_images):
    """The rows of a caption do not depend on the captions beside it, and their entries of the caption's tokens sum to its score."""
    path = drawn_images[0].path
    expected = baseline.token_log_probabilities(path, captions=REFERENCES)
    actual = captioner.token_log_probabilities(path, captions=REFERENCES)
    (scores,) = captioner.score(path, captions=REFERENCES)
    for caption, ported, reference, score in zip(REFERENCES, actual, expected, scores, strict=True):
        ids = captioner.text_ids(caption)
        assert ported.shape == reference.shape == (len(ids) - 1, captioner.manifest.model.vocabulary)
        np.testing.assert_allclose(ported, reference, atol=1e-3)
        assert np.exp(ported.astype(np.float64)).sum(axis=1) == pytest.approx(1, abs=1e-5)
        assert sum(float(row[token]) for row, token in zip(ported, ids[1:], strict=True)) == pytest.approx(score, abs=1e-4)
        assert kl_divergence(reference, ported).max() < 1e-6
        (alone,) = captioner.token_log_probabilities(path, captions=[caption])
        np.testing.assert_allclose(ported, alone, atol=1e-4)
    with pytest.raises(RequestError, match="at least one caption"):
        captioner.token_log_probabilities(path, captions=[])
