"""Which captions do not depend on the batch size: decision 44 has the measurements."""

from dataclasses import replace

import pytest

import runtimes
from runtimes.decoding.drafts.drafter import Drafter
from runtimes.host.facts import read_host
from runtimes.pool.batch_invariance import is_batch_invariant
from runtimes.pool.job import Request

REQUEST = Request(
    prompt=None, num_beams=None, min_length=None, max_length=None, batch_size=1, max_pixels=None, reduce_large=False, strip_prompt=False
)


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ("onnx-fp32", True),
        ("onnx-int8", True),
        ("onnx-int8-single", True),
        ("onnx-int4", "avx512" in read_host().cpu_features),
        ("pytorch-int8", False),
        ("pytorch-fp32", False),
    ],
)
def test_by_recipe(tiny_artifacts, recipe, expected):
    with runtimes.load(tiny_artifacts[recipe], draft=False) as captioner:
        assert is_batch_invariant(captioner, REQUEST) is expected


def test_larger_blocks_and_layers_without_blocks_are_not(tiny_artifacts):
    with runtimes.load(tiny_artifacts["onnx-int8"], draft=False) as captioner:
        manifest, components = captioner.manifest, captioner.manifest.recipe["components"]
        for decoder in ({"weights": "qint8", "block_size": 128}, {"weights": "qint8"}, {"layers": {"*.fc1": {"weights": "fp16"}}}):
            captioner.manifest = replace(manifest, recipe={"components": {**components, "decoder": decoder}})
            assert not is_batch_invariant(captioner, REQUEST)


def test_drafts_of_quantized_decoders_serve_one_image_per_run(tiny_artifacts):
    with runtimes.load(tiny_artifacts["onnx-int8"]) as captioner:
        for tolerance, expected in ((0.1, False), (1e-5, True)):
            captioner.drafter = Drafter({}, (1.0,), 0, tolerance=tolerance)
            assert is_batch_invariant(captioner, REQUEST) is expected
            assert is_batch_invariant(captioner, replace(REQUEST, num_beams=3))
