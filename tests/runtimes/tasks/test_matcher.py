"""`Matcher`: scores of transformers, independent of the batch, and errors of one line.

transformers' scores are those of one call of the whole model per image and text.
"""

import numpy as np
import pytest

import runtimes
from runtimes.errors import ImageReadError, RequestError
from tests.parity.matching import reference

TEXTS = (
    "a red dog",
    "two",
    "a big black horse standing on snow with a child",
    "a woman sitting at a table",
    "a blue dog",
    "the cat, eating",
)
RECIPES = ("onnx-fp32", "pytorch-fp32", "onnx-int8", "pytorch-int8")
EXACT = RECIPES[:2]


@pytest.fixture(scope="module")
def paths(drawn_images):
    return [image.path for image in drawn_images[:4]]


@pytest.fixture(scope="module", params=RECIPES)
def matcher(request, matcher_artifacts):
    return runtimes.load(matcher_artifacts[request.param], task="matching", threads=1)


@pytest.fixture(scope="module")
def onnx(matcher_artifacts):
    return runtimes.load(matcher_artifacts["onnx-fp32"], task="matching", threads=1)


@pytest.mark.parametrize("recipe", EXACT)
def test_scores_are_those_of_transformers(recipe, matcher_artifacts, tiny_matcher, paths):
    with runtimes.load(matcher_artifacts[recipe], task="matching", threads=1) as matcher:
        probabilities, similarities = matcher.match(paths, TEXTS), matcher.similarity(paths, TEXTS)
    probability, similarity = (reference(tiny_matcher, paths, TEXTS, use_itm_head=head) for head in (True, False))
    np.testing.assert_allclose(probabilities, probability, atol=1e-4)
    np.testing.assert_allclose(similarities, similarity, atol=1e-4)
    assert probability.std() > 0.01  # other scores would be noticed
    assert similarity.std() > 0.01


def test_results_do_not_depend_on_batches_and_neighbours(matcher, paths):
    probabilities, embeddings = matcher.match(paths, TEXTS), matcher.embed_images(paths)
    exact = {"atol": 1e-6 if matcher.manifest.target.precision == "fp32" else 0, "rtol": 0}
    for batch_size, workers in ((3, 0), (2, 2)):
        np.testing.assert_allclose(matcher.match(paths, TEXTS, batch_size=batch_size, workers=workers), probabilities, **exact)
        np.testing.assert_allclose(matcher.embed_images(paths, batch_size=batch_size, workers=workers), embeddings, **exact)
    np.testing.assert_allclose(matcher.match(paths[1], TEXTS[2]), probabilities[1:2, 2:3], **exact)
    texts = matcher.embed_texts(TEXTS)
    np.testing.assert_allclose(matcher.embed_texts(TEXTS[4]), texts[4:5], **exact)
    np.testing.assert_allclose(np.linalg.norm([*embeddings, *texts], axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(matcher.similarity(paths, TEXTS), embeddings @ texts.T, atol=1e-6)


def test_many_texts_of_one_length_run_in_parts(onnx, paths):
    colours, animals = ("red", "blue", "green", "white", "black", "big"), ("dog", "cat", "bird", "horse", "cow", "man")
    texts = [f"a {colour} {animal}" for colour in colours for animal in animals]
    single = np.array([onnx.match(paths[0], text)[0, 0] for text in texts])
    np.testing.assert_allclose(onnx.match(paths[0], texts)[0], single, atol=1e-6)
    np.testing.assert_allclose(onnx.match(paths[:3], texts, batch_size=3)[0], single, atol=1e-6)
    np.testing.assert_allclose(onnx.embed_texts(texts)[35], onnx.embed_texts(texts[35])[0], atol=1e-6)


def test_an_unreadable_image_does_not_affect_the_others(onnx, paths, tmp_path):
    (tmp_path / "bad.jpg").write_text("not an image")
    images = [paths[0], tmp_path / "bad.jpg", paths[1]]
    expected = onnx.match([paths[0], paths[1]], TEXTS)
    for batch_size in (1, 3):
        first, bad, last = onnx.stream(images, TEXTS, batch_size=batch_size)
        np.testing.assert_allclose([first.probabilities, last.probabilities], expected, atol=1e-6)
        assert first.error is None
        assert bad.code == "IMAGE_UNREADABLE"
        assert str(tmp_path / "bad.jpg") in bad.error
        assert bad.probabilities == bad.similarities == ()
        vectors = list(onnx.stream_embeddings(images, batch_size=batch_size))
        assert [each.vector is None for each in vectors] == [False, True, False]
    for method in (onnx.match, onnx.similarity):
        with pytest.raises(ImageReadError):
            method(images, TEXTS)
    with pytest.raises(ImageReadError):
        onnx.embed_images(images)


@pytest.mark.parametrize("texts", [[], "", "  ", ["a dog", "\n"], ["a dog", 3], "dog " * 40, None])
def test_a_text_that_cannot_be_used_is_refused_before_images_are_read(texts, onnx):
    for call in (lambda: onnx.match("none.jpg", texts), lambda: onnx.stream("none.jpg", texts), lambda: onnx.embed_texts(texts)):
        with pytest.raises(RequestError) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_other_requests_that_are_refused(onnx, paths, matcher_artifacts):
    for options in ({"batch_size": 0}, {"workers": -1}):
        with pytest.raises(RequestError):
            onnx.match(paths, TEXTS, **options)
    matcher = runtimes.load(matcher_artifacts["onnx-fp32"], task="matching", threads=1)
    matcher.close()
    with pytest.raises(RequestError, match="closed"):
        matcher.match(paths, TEXTS)
    assert onnx.match([], TEXTS).shape == (0, len(TEXTS))


def test_every_wrong_pair_of_task_and_artifact_names_the_right_command(matcher_artifacts, tiny_artifacts):
    with pytest.raises(RequestError, match="toolkit match"):
        runtimes.load(matcher_artifacts["onnx-fp32"])
    with pytest.raises(RequestError, match="toolkit caption"):
        runtimes.load(tiny_artifacts["onnx-fp32"], task="matching")
