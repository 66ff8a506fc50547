"""`Answerer`: shared runs of the vision encoder, independence of the batch, scores, and bad input; for parity see tests/parity."""

from itertools import repeat

import numpy as np
import pytest

import runtimes
from runtimes.errors import RequestError
from tests.runtimes.engines.test_step_session import CountingEngine

RECIPES = ("onnx-fp32", "onnx-int8", "pytorch-fp32")
QUESTIONS = ("is the dog red", "two", "what color is it")


@pytest.fixture(scope="module", params=RECIPES)
def answerer(request, tiny_vqa_artifacts):
    return runtimes.load(tiny_vqa_artifacts[request.param], task="vqa", threads=1)


@pytest.fixture(scope="module")
def onnx(tiny_vqa_artifacts):
    return runtimes.load(tiny_vqa_artifacts["onnx-fp32"], task="vqa", threads=1)


@pytest.fixture(scope="module")
def paths(drawn_images):
    return [image.path for image in drawn_images[:4]]


def test_answers_do_not_depend_on_the_batch_or_the_other_questions(answerer, paths):
    questions = [["two", "is the dog red"], "two", list(QUESTIONS), "a"]
    together = answerer.answer(paths, questions, batch_size=4)
    alone = []
    for path, group in zip(paths, questions, strict=True):
        for question in [group] if isinstance(group, str) else group:
            alone += answerer.answer(path, question)
    assert [answer.token_ids for answer in together] == [answer.token_ids for answer in alone]
    assert [answer.score for answer in together] == pytest.approx([answer.score for answer in alone], abs=1e-5)
    assert [answer.question for answer in together] == ["two", "is the dog red", "two", *QUESTIONS, "a"]


def test_questions_share_the_vision_encoder(onnx, paths):
    session = onnx.session._session
    engine = session._engine
    session._engine = counting = CountingEngine(engine)
    try:
        onnx.answer(paths, repeat(list(QUESTIONS)), batch_size=4)
        assert counting.encoded == [4]
    finally:
        session._engine = engine


def test_the_ways_to_ask(onnx, paths):
    each = [answer.token_ids for path in paths[:2] for answer in onnx.answer(path, list(QUESTIONS))]
    assert [answer.token_ids for answer in onnx.answer(paths[:2], [list(QUESTIONS)] * 2)] == each
    assert [answer.token_ids for answer in onnx.stream(iter(paths[:2]), repeat(list(QUESTIONS)))] == each
    assert [answer.question for answer in onnx.answer(paths[:2], "two")] == ["two", "two"]
    assert onnx.info().task == "vqa"


def test_an_unreadable_image_is_an_error_for_each_question(onnx, paths):
    good, bad = onnx.answer(paths[0], ["two"]), onnx.answer([paths[0], "none.png"], ["two", ["two", "a"]])
    assert bad[0] == good[0]
    assert [(answer.question, answer.code, answer.text) for answer in bad[1:]] == [
        ("two", "IMAGE_UNREADABLE", ""),
        ("a", "IMAGE_UNREADABLE", ""),
    ]


def test_score_ranks_given_answers(answerer, paths):
    """An answer that the search itself gives has the log-probability of its tokens."""
    (answer,) = answerer.answer(paths[0], "is the dog red", log_probabilities=True)
    (scores,) = answerer.score(paths[0], "is the dog red", answers=["red", answer.text])
    (row,) = answerer.token_log_probabilities(paths[0], "is the dog red", answers=["red"])
    ids = answerer.text_ids("red")
    assert scores[0] == pytest.approx(float(row[np.arange(len(ids) - 1), ids[1:]].sum()), abs=1e-4)
    shared = answerer.score(paths[:2], ["two", ["two", "a"]], answers=["red", "blue"])
    own = answerer.score(paths[:2], ["two", ["two", "a"]], answers=[["red"], ["blue"], ["red", "blue"]])
    assert [len(each) for each in shared] == [2, 2, 2]
    assert [each.tolist() for each in own] == [shared[0][:1].tolist(), shared[1][1:].tolist(), shared[2].tolist()]


@pytest.mark.parametrize(
    ("questions", "fact"),
    [
        ("", "empty"),
        ("  ", "empty"),
        (3, "not int"),
        ([3], "not int"),
        (["a " * 40], "at most 32"),
        ([[]], "at least one"),
        (["a", "b"], "2"),
    ],
)
def test_a_question_that_cannot_be_asked(onnx, paths, questions, fact):
    with pytest.raises(RequestError, match=fact):
        onnx.stream(paths[:1], questions)


def test_sampling_depends_on_the_question(onnx, paths):
    settings = {"do_sample": True, "seed": 3, "max_length": 20}
    first, second = (onnx.answer(paths[0], ["two", "a"], **settings) for _ in range(2))
    assert first == second
    assert first[0].token_ids != first[1].token_ids
