"""`Captioner`: one caption per image in order, scores, prompts, and errors of one line.

The comparison with transformers is in tests/parity. These tests compare tiny artifacts with themselves.
"""

import io
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

import runtimes
from runtimes.artifact.generation import GenerationConfig
from runtimes.decoding.log_softmax import log_softmax
from runtimes.decoding.scoring import sequence_log_probability, token_log_probabilities
from runtimes.errors import ImageReadError, RequestError
from runtimes.tasks.results import Caption

RECIPES = ("onnx-fp32", "onnx-int8", "onnx-int4", "pytorch-fp32", "pytorch-int8")
PROMPTS = (None, "a red dog ", "two")


@pytest.fixture(scope="module", params=RECIPES)
def captioner(request, tiny_artifacts):
    return runtimes.load(tiny_artifacts[request.param], threads=1)


@pytest.fixture(scope="module")
def onnx(tiny_artifacts):
    return runtimes.load(tiny_artifacts["onnx-fp32"], threads=1)


@pytest.fixture(scope="module")
def paths(drawn_images):
    return [image.path for image in drawn_images[:8]]


@pytest.fixture(scope="module")
def bad(tmp_path_factory, sample_images):
    """Sources that are not images → start of their error message."""
    folder = tmp_path_factory.mktemp("bad")
    content = sample_images[0].path.read_bytes()
    (folder / "cut.jpg").write_bytes(content[: len(content) // 2])
    (folder / "empty.png").touch()
    (folder / "text.jpg").write_text("not an image")
    return {
        folder / "cut.jpg": f"{folder}/cut.jpg: cannot be read: ",
        folder / "empty.png": f"{folder}/empty.png: is empty",
        str(folder / "text.jpg"): f"{folder}/text.jpg: is not an image that can be read ",
        folder / "none.jpg": f"{folder}/none.jpg: no such file",
        folder: f"{folder}: cannot be read: ",
        b"": "<bytes>: is empty",
        content[:1000]: "<bytes>: cannot be read: ",
    }


def test_an_unreadable_image_does_not_affect_the_others(captioner, paths, bad):
    mixed, begins = [], []
    for number, (source, begin) in enumerate(bad.items()):
        mixed += [paths[number], source]
        begins += [None, begin]
    mixed += [np.zeros((4, 4), np.float32), paths[7], None]
    begins += ["<ndarray>: is an array float32[4,4]; ", None, "<NoneType>: is of type NoneType; "]
    good = {str(path): caption for path, caption in zip(paths, captioner.caption(paths), strict=True)}
    captions = captioner.caption(mixed)
    assert len(captions) == len(mixed)
    for source, begin, caption in zip(mixed, begins, captions, strict=True):
        if begin is None:
            assert caption == good[str(source)]
            assert caption.error is None
        else:
            assert caption == Caption(text="", token_ids=(), score=None, error=caption.error, code="IMAGE_UNREADABLE")
            assert caption.error.startswith(begin)
            assert caption.error.isprintable()


@pytest.mark.parametrize("batch_size", [2, 3, 100])
def test_captions_do_not_depend_on_the_batch_size(onnx, paths, bad, batch_size):
    mixed = [paths[0], *list(bad)[:3], paths[1], paths[2], *list(bad)[3:], *paths[3:]]
    single, batched = onnx.caption(mixed), onnx.caption(mixed, batch_size=batch_size)
    assert [(c.text, c.token_ids, c.error) for c in batched] == [(c.text, c.token_ids, c.error) for c in single]
    assert [c.score for c in batched if c.error is None] == pytest.approx([c.score for c in single if c.error is None], abs=1e-5)
    assert sum(c.error is None for c in batched) == 8


def test_captions_differ_between_images(captioner, paths):
    assert len({caption.token_ids for caption in captioner.caption(paths)}) > 4


def test_only_unreadable_images_and_no_images(captioner, bad):
    assert captioner.caption([]) == []
    assert captioner.score([], captions=[]) == []
    assert [caption.text for caption in captioner.caption(list(bad), batch_size=3)] == [""] * len(bad)
    assert all(caption.error for caption in captioner.caption(list(bad), batch_size=3))


@pytest.mark.parametrize("order", [1, -1])
def test_a_default_of_new_tokens_ends_at_the_positions_of_the_model(tiny_artifacts, sample_images, order):
    """Each prompt has its own limit, and what the caller asks for is not shortened."""
    captioner = runtimes.load(tiny_artifacts["onnx-fp32"], threads=1)
    captioner.manifest = replace(captioner.manifest, defaults=GenerationConfig(max_new_tokens=20))
    path, prompts, longest = sample_images[0].path, [None, " ".join(["dog"] * 15)][::order], captioner.manifest.model.max_positions
    captions = captioner.caption([path, path], prompt=prompts, suppress_tokens=[captioner.manifest.tokenizer.eos_id])
    assert [len(caption.token_ids) for caption in captions] == [21, longest][::order]
    streamed = list(captioner.stream_tokens(path, prompt=" ".join(["dog"] * 15), suppress_tokens=[captioner.manifest.tokenizer.eos_id]))
    assert (len(streamed), streamed[-1].finish_reason) == (longest - 16, "length")
    for asked in ({"max_new_tokens": 20}, {"generation_config": GenerationConfig(max_new_tokens=20)}):
        with pytest.raises(RequestError, match="max_new_tokens 20"):
            captioner.caption([path, path], prompt=prompts, **asked)


def test_captions_do_not_depend_on_the_kind_of_source(captioner, sample_images):
    path = sample_images[0].path
    opened = Image.open(path)
    lossless = io.BytesIO()
    opened.save(lossless, "PNG")
    ways = [path, str(path), path.read_bytes(), opened, np.asarray(opened), lossless.getvalue()]
    assert len(set(captioner.caption(ways))) == 1
    assert captioner.caption(ways)[0].error is None
    assert len({float(score[0]) for score in captioner.score(ways, captions=["a red dog"] * 6)}) == 1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"num_beams": 0}, "num_beams must be at least 1"),
        ({"num_beams": -3}, "num_beams must be at least 1"),
        ({"num_beams": 32}, "32 beams are too many for a vocabulary of 64"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"batch_size": 1.5}, "batch_size must be an integer, not 1.5"),
        ({"workers": "2"}, "workers must be an integer, not '2'"),
        ({"num_beams": 2.0}, "num_beams must be an integer, not 2.0"),
        ({"num_beams": True}, "num_beams must be an integer, not True"),
        ({"max_length": "7"}, "max_length must be an integer, not '7'"),
        ({"max_new_tokens": 7.5}, "max_new_tokens must be an integer, not 7.5"),
        ({"temperature": "1"}, "temperature must be a number, not '1'"),
        ({"do_sample": "yes"}, "do_sample must be True or False, not 'yes'"),
        ({"do_sample": True, "top_k": 5.5}, "top_k must be an integer, not 5.5"),
        ({"do_sample": True, "seed": 1.5}, "seed must be an integer, not 1.5"),
        ({"suppress_tokens": 5}, "suppress_tokens must be a list of token ids, and bad_words_ids a list of such lists"),
        ({"bad_words_ids": [1]}, "suppress_tokens must be a list of token ids, and bad_words_ids a list of such lists"),
        ({"max_length": 33}, "max_length 33 is more than the 32 positions of this model"),
        ({"max_length": 1}, "lengths must satisfy 0 <= min_length <= max_length and max_length >= 2"),
        ({"max_length": -1}, "lengths must satisfy 0 <= min_length <= max_length and max_length >= 2"),
        ({"min_length": 21}, "lengths must satisfy 0 <= min_length <= max_length and max_length >= 2"),
        ({"min_length": -1}, "lengths must satisfy 0 <= min_length <= max_length and max_length >= 2"),
        ({"length_penalty": 1e9}, "length_penalty must be between -10 and 10"),
        ({"length_penalty": float("nan"), "num_beams": 2}, "length_penalty must be between -10 and 10"),
        ({"prompt": "a red dog", "max_length": 4}, "the prompt takes 4 tokens, so max_length must be more than that; it is 4"),
        ({"prompt": "a " * 40}, "the prompt takes 41 tokens, so max_length must be more than that; it is 20"),
        ({"prompt": "a " * 40, "max_length": 32}, "the prompt takes 41 tokens, so max_length must be more than that; it is 32"),
    ],
)
def test_invalid_arguments(captioner, paths, options, text):
    for images in (paths[:1], []):
        with pytest.raises(RequestError) as caught:
            captioner.caption(images, **options)
        assert str(caught.value) == text


@pytest.mark.parametrize("options", [{"num_beam": 3}, {"generation_config": {"num_beams": 3}}])
def test_settings_that_are_none(captioner, paths, options):
    with pytest.raises(RequestError, match=next(iter(options))):
        captioner.caption(paths[:1], **options)


@pytest.mark.parametrize("kind", [io.BytesIO, bytearray, memoryview])
def test_what_yields_bytes_is_no_list_of_images(captioner, paths, kind):
    with pytest.raises(RequestError, match=f"not {kind.__name__}"):
        captioner.caption(kind(paths[0].read_bytes()))


def test_requests_at_the_limits(captioner, paths):
    for options in (
        {"max_length": 32, "min_length": 32},
        {"max_length": 2},
        {"max_length": 5, "min_length": 5, "prompt": "a red dog"},
        {"num_beams": 31},
        {"num_beams": 3, "length_penalty": 10.0, "max_length": 32},
        {"num_beams": 3, "length_penalty": -10.0, "max_length": 32},
    ):
        (caption,) = captioner.caption(paths[:1], **options)
        assert caption.error is None
        assert max(2, options.get("min_length", 0)) <= len(caption.token_ids) <= options.get("max_length", 20)
    for num_beams in (1, 3):
        captions = captioner.caption(paths, num_beams=num_beams, min_length=12, max_length=12)
        assert {len(caption.token_ids) for caption in captions} == {12}


def test_score_with_invalid_arguments(captioner, paths, bad):
    for images, captions, text in (
        (paths[:2], ["a dog"], "2 images but captions for 1"),
        (paths[:1], [], "1 images but captions for 0"),
        ([], ["a dog"], "0 images but captions for 1"),
        (paths[:2], ["a dog", []], "score needs at least one caption"),
    ):
        with pytest.raises(RequestError) as caught:
            captioner.score(images, captions=captions)
        assert str(caught.value) == text
    for source, begin in bad.items():
        with pytest.raises(ImageReadError) as unread:
            captioner.score([source], captions=["a dog"])
        assert str(unread.value).startswith(begin)


@pytest.mark.parametrize("recipe", ["onnx-fp32", "pytorch-fp32"])
def test_a_score_is_the_sum_of_its_tokens(tiny_artifacts, recipe, paths):
    """The reference feeds one caption token by token. INT8 is excluded, since its activation scales depend on the whole run."""
    captioner = runtimes.load(tiny_artifacts[recipe], threads=1)
    captions = ["a red dog", "two", "a big horse sitting on the table in a street", ""]
    (together,) = captioner.score(paths[:1], captions=[captions])
    assert (together.shape, together.dtype) == ((4,), np.float32)
    pixels = captioner._pixels(paths[0])[None]
    for caption, score in zip(captions, together, strict=True):
        ids, total = captioner.text_ids(caption), 0.0
        state = captioner.session.encode({"pixels": pixels})
        for before, after in pairwise(ids):
            logits, state = captioner.session.step(np.array([[before]]), state, np.array([0]))
            total += float(log_softmax(logits[0, 0])[after])
        assert score == pytest.approx(total, abs=1e-4)


def test_a_caption_that_is_too_long_is_cut(onnx, paths):
    long = "a dog " * 40
    assert len(onnx.text_ids(long)) == 32
    (score,) = onnx.score(paths[:1], captions=[long])
    assert np.isfinite(score).all()
    assert onnx.score(paths[:1], captions=["a dog " * 16]) == [score]


@pytest.mark.parametrize("num_beams", [1, 3])
def test_the_score_of_a_caption_equals_the_result_of_scoring(onnx, paths, num_beams):
    """The search sums log-probabilities step by step; scoring computes all tokens in one run."""
    captions = onnx.caption(paths, max_length=32, num_beams=num_beams)
    scored, session = [], onnx.stepwise_session
    for path, caption in zip(paths, captions, strict=True):
        (row,) = token_log_probabilities(session, session.encode({"pixels": onnx._pixels(path)[None]}), [caption.token_ids], pad_id=0)
        scored.append(sequence_log_probability(row, caption.token_ids))
    assert [caption.score * (len(caption.token_ids) - 1) for caption in captions] == pytest.approx(scored, abs=1e-3)


@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize("prompt", ["a red dog", "A Red DOG ", "two"])
def test_the_prompt_stays_and_can_be_stripped(captioner, paths, prompt, num_beams):
    start = captioner.tokenizer.prompt_ids(prompt)
    for caption in captioner.caption(paths, prompt=prompt, num_beams=num_beams):
        assert caption.text.startswith(prompt.strip().lower())
        assert list(caption.token_ids[: len(start)]) == start
        rest = captioner.strip_prompt(caption, prompt)
        assert rest == captioner.tokenizer.text(caption.token_ids[len(start) :])
        assert not rest.startswith(" ")
        assert "".join((prompt.lower() + rest).split()) == "".join(caption.text.split())
        assert captioner.strip_prompt(caption, None) == caption.text


def test_stripping_the_prompt_of_an_error(captioner, bad):
    (caption,) = captioner.caption(list(bad)[:1], prompt="two")
    assert captioner.strip_prompt(caption, "two") == ""


def test_captions_are_reproducible(captioner, paths):
    first = captioner.caption(paths, prompt="two", num_beams=2)
    captioner.caption(paths[:3], batch_size=3, num_beams=3)
    assert captioner.caption(paths, prompt="two", num_beams=2) == first


def test_captioners_of_all_kinds_in_one_process(tiny_artifacts, paths):
    """One after the other, then all at once in turns. Torch's quantized engine and number of threads belong to the process."""
    alone = {}
    for recipe in RECIPES:
        alone[recipe] = runtimes.load(tiny_artifacts[recipe], threads=1).caption(paths)
    opened = {recipe: runtimes.load(tiny_artifacts[recipe], threads=1) for recipe in (*RECIPES, *reversed(RECIPES))}
    turns = {recipe: [opened[recipe].caption([path])[0] for path in paths] for recipe in opened}
    by_image = [{recipe: opened[recipe].caption([path])[0] for recipe in opened} for path in paths]
    assert turns == alone
    assert {recipe: [row[recipe] for row in by_image] for recipe in opened} == alone


def test_the_timer_is_called_for_every_phase(captioner, paths):
    phases = []
    captions = captioner.caption(paths[:3], max_length=6, min_length=6, timer=lambda phase, seconds: phases.append((phase, seconds >= 0)))
    assert [len(caption.token_ids) for caption in captions] == [6, 6, 6]
    assert phases == [("read", True), ("encode", True), ("first_token", True), ("step", True), *[("token", True), ("step", True)] * 4] * 3


def test_a_caption_that_was_cut_is_marked(onnx, paths):
    eos = onnx.manifest.tokenizer.eos_id
    for captions in (onnx.caption(paths, max_length=6), onnx.caption(paths), onnx.caption(paths, num_beams=3, max_new_tokens=4)):
        assert [caption.finish_reason for caption in captions] == [
            "stop" if caption.token_ids[-1] == eos else "length" for caption in captions
        ]
    assert {caption.finish_reason for caption in onnx.caption(paths, max_length=16)} == {"stop", "length"}


PROMPTS = ["a picture of", None, "two", "", "a red dog on the grass", "two"]


@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 4, 6])
def test_each_image_has_its_own_prompt(onnx, paths, num_beams, batch_size):
    expected = [onnx.caption(path, prompt=prompt, num_beams=num_beams)[0] for path, prompt in zip(paths, PROMPTS, strict=False)]
    captions = onnx.caption(paths[: len(PROMPTS)], prompt=PROMPTS, num_beams=num_beams, batch_size=batch_size)
    assert [caption.token_ids for caption in captions] == [caption.token_ids for caption in expected]


def test_an_unreadable_image_takes_its_prompt_with_it(onnx, paths):
    bad, good = onnx.caption(["missing.jpg", paths[0]], prompt=["two", "a picture of"], batch_size=2)
    assert (bad.code, good.text.startswith("a picture of")) == ("IMAGE_UNREADABLE", True)


@pytest.mark.parametrize("prompt", [["two"], ["two"] * 3, [], 5, ["two", 5], ["two", b"two"], {"two": 1}])
def test_a_wrong_prompt_is_an_invalid_request(onnx, paths, prompt):
    with pytest.raises(RequestError, match="prompt"):
        onnx.caption(paths[:2], prompt=prompt)


@pytest.mark.parametrize("count", [1, 3])
def test_an_iterator_of_images_needs_as_many_prompts(onnx, paths, count):
    with pytest.raises(RequestError, match="images than prompts"):
        onnx.caption(iter(paths[:2]), prompt=["two"] * count)
