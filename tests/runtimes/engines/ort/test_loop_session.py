"""Test the single graph against the search in Python: the same ids, texts and scores. What it does not support is refused in one line.

The reference is the search in Python with the split graphs of the same weights, which equals transformers' (tests/parity).
"""

import numpy as np
import pytest

import runtimes
from runtimes.artifact.folder import open_artifact
from runtimes.errors import RequestError
from runtimes.verification.sandbox import examine_in_subprocess

REQUESTS = [
    {},
    {"max_length": 2},
    {"max_length": 32, "min_length": 9},
    {"max_length": 12, "min_length": 12},
    {"prompt": "a red dog", "length_penalty": 2.0},
    {"prompt": "two", "min_length": 8, "length_penalty": 0.0},
    {"prompt": "a red dog", "max_length": 5},
]


@pytest.fixture(scope="module")
def single(tiny_artifacts):
    return runtimes.load(tiny_artifacts["onnx-int8-single"], threads=1)


@pytest.fixture(scope="module")
def split(tiny_artifacts):
    return runtimes.load(tiny_artifacts["onnx-int8"], threads=1)


@pytest.fixture(scope="module")
def paths(drawn_images):
    return [image.path for image in drawn_images]


def lengths(captions):
    return {len(caption.token_ids) for caption in captions}


@pytest.mark.parametrize("batch_size", [1, 3, 16])
@pytest.mark.parametrize("request_", REQUESTS, ids=str)
def test_captions_are_those_of_the_split_graphs(single, split, paths, request_, batch_size):
    captions, expected = (captioner.caption(paths, batch_size=batch_size, **request_) for captioner in (single, split))
    assert [(caption.text, caption.token_ids) for caption in captions] == [(caption.text, caption.token_ids) for caption in expected]
    assert [caption.score for caption in captions] == pytest.approx([caption.score for caption in expected], abs=1e-4)


def test_the_requests_end_at_different_lengths(split, paths):
    """Otherwise, the test above would not cover captions that end early in a batch."""
    assert len(lengths(split.caption(paths))) > 2
    assert len(lengths(split.caption(paths, prompt="two", min_length=8))) > 1
    shortest = min(lengths(split.caption(paths)))
    assert min(lengths(split.caption(paths, min_length=9, max_length=32))) >= 9 > shortest


def test_ended_captions_are_padded_until_all_have_ended(single, split, paths):
    pixels = np.stack([single._pixels(path) for path in paths])
    spec = single.manifest.tokenizer
    ids, scores = single.session.caption({"pixels": pixels}, np.array([spec.bos_id]), 0, 20)
    assert (ids.dtype, ids.shape[0], scores.dtype, scores.shape) == (np.int64, 16, np.float32, (16,))
    for row, caption in zip(ids.tolist(), split.caption(paths, batch_size=16), strict=True):
        assert row == [*caption.token_ids, *[spec.pad_id] * (len(row) - len(caption.token_ids))]
    short = [index for index, caption in enumerate(split.caption(paths)) if len(caption.token_ids) < 10]
    ids, _ = single.session.caption({"pixels": pixels[short]}, np.array([spec.bos_id]), 0, 20)
    assert len(short) > 1
    assert ids.shape[1] < 10, "the loop ends when the last caption has ended"


def test_features_that_need_logits_are_refused_in_one_line(single, paths):
    for lacking, request in (
        ("beams", lambda: single.caption(paths[:1], num_beams=3)),
        ("beams", lambda: single.caption([], num_beams=2)),
        ("score", lambda: single.score(paths[:1], captions=["a red dog"])),
        ("step", lambda: single.stepwise_session),
    ):
        with pytest.raises(RequestError) as caught:
            request()
        assert caught.value.code == "REQUEST_INVALID"
        assert f"capability {lacking} (it has: loop)" in str(caught.value)
    with pytest.raises(RequestError, match="num_beams"):
        single.caption(paths[:1], num_beams=0)


def test_the_clock_measures_one_phase_per_image(single, paths):
    phases = []
    single.caption(paths[:2], timer=lambda phase, seconds: phases.append((phase, seconds > 0)))
    assert phases == [("read", True), ("loop", True)] * 2


def test_its_info_equals_that_of_the_split_graphs(single, split):
    assert single.session.info() == split.session.info()


def test_it_opens_in_a_subprocess(tiny_artifacts):
    examine_in_subprocess(open_artifact(tiny_artifacts["onnx-int8-single"]))
