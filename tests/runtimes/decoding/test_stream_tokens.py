"""`stream_tokens` and log-probabilities: the same tokens and numbers as `caption`, and errors by name."""

import numpy as np
import pytest

import runtimes
from runtimes.errors import ImageReadError, RequestError
from runtimes.pool.rows import row_of

SETTINGS = [
    {},
    {"prompt": "a red dog"},
    {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2, "max_new_tokens": 6},
    {"do_sample": True, "seed": 3, "top_p": 0.9},
]


@pytest.fixture(scope="module", params=["onnx-fp32", "pytorch-int8"])
def captioner(request, tiny_artifacts):
    return runtimes.load(tiny_artifacts[request.param], device="cpu", threads=1)


@pytest.fixture(scope="module")
def paths(drawn_images):
    return [image.path for image in drawn_images[:4]]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_tokens_are_those_of_caption(captioner, paths, settings):
    for path in paths:
        (caption,) = captioner.caption(path, log_probabilities=True, **settings)
        tokens = list(captioner.stream_tokens(path, **settings))
        ids = caption.token_ids[len(captioner.tokenizer.prompt_ids(settings.get("prompt"))) :]
        assert [token.token_id for token in tokens] == list(ids)
        assert tuple(token.log_probability for token in tokens) == caption.log_probabilities
        assert [token.text for token in tokens][-1] == caption.text
        assert [token.finish_reason for token in tokens] == [None] * (len(ids) - 1) + [caption.finish_reason]


@pytest.mark.parametrize(
    "settings", [*SETTINGS, {"num_beams": 3}, {"num_beams": 4, "num_return_sequences": 3, "no_repeat_ngram_size": 2}], ids=str
)
def test_log_probabilities_sum_to_the_score(captioner, paths, settings):
    prompt = len(captioner.tokenizer.prompt_ids(settings.get("prompt")))
    for best in captioner.caption(paths, batch_size=3, log_probabilities=True, **settings):
        for caption in (best, *best.alternatives):
            count = len(caption.token_ids) - prompt
            assert len(caption.log_probabilities) == count
            assert sum(caption.log_probabilities) / count == pytest.approx(caption.score, abs=1e-4)


def test_captions_have_them_on_request_only(captioner, paths):
    (without,), (with_them,) = (captioner.caption(paths[0], log_probabilities=requested) for requested in (False, True))
    assert without.log_probabilities is None
    assert "log_probabilities" not in row_of("x", [without], captioner, None)
    assert row_of("x", [with_them], captioner, None)["log_probabilities"] == with_them.log_probabilities


@pytest.mark.parametrize("name", ["log_probabilities", "stream_tokens"])
def test_a_single_graph_names_what_it_cannot_return(tiny_artifacts, paths, name):
    with runtimes.load(tiny_artifacts["onnx-int8-single"], device="cpu") as captioner, pytest.raises(RequestError, match=name):
        captioner.stream_tokens(paths[0]) if name == "stream_tokens" else captioner.caption(paths[0], log_probabilities=True)


def test_errors_are_raised_by_the_call(captioner, paths, tmp_path):
    for settings in ({"num_beams": 2}, {"do_sample": True, "num_return_sequences": 2}, {"max_length": 33}):
        with pytest.raises(RequestError):
            captioner.stream_tokens(paths[0], **settings)
    with pytest.raises(RequestError, match="one image"):
        captioner.stream_tokens(paths)
    for image in (tmp_path / "none.png", b"", np.zeros((4, 4), np.float32)):
        with pytest.raises(ImageReadError):
            captioner.stream_tokens(image)


def test_a_stopped_stream_leaves_the_captioner_usable(captioner, paths):
    stream = captioner.stream_tokens(paths[0])
    next(stream)
    stream.close()
    assert captioner.caption(paths[0])[0].error is None
