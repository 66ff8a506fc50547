"""The baseline gets exactly the pixels of an artifact, whatever the height of the image."""

import numpy as np
import pytest
from PIL import Image

from exporters.families.blip_reference import HfCaptioner
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
