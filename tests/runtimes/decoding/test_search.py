"""Greedy and beam search with a session of scripted probabilities; expected captions and calls were computed by hand.

The comparison with transformers on real models is in tests/parity/test_generate.py.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import log

import numpy as np
import pytest
from PIL import Image

from runtimes.artifact.folder import open_artifact
from runtimes.artifact.generation import GenerationConfig
from runtimes.artifact.manifest import TokenizerSpec
from runtimes.decoding.beam_search import top_k
from runtimes.decoding.hypothesis import Hypothesis
from runtimes.decoding.search import by_length, generate
from runtimes.decoding.session import STEPWISE, DeviceMemoryError, EngineInfo
from runtimes.decoding.tokenizer import CaptionTokenizer
from runtimes.errors import OutOfMemoryError, RequestError, UnavailableError
from runtimes.tasks.captioner import Captioner

BOS, EOS, A, B, C = 1, 2, 3, 4, 5
SPEC = TokenizerSpec(bos_id=BOS, eos_id=EOS, pad_id=0)
NEVER = 1e-12
"""Probability of a token that a script does not list."""

Script = Callable[[int, tuple[int, ...]], Mapping[int, float]]
"""(image, tokens so far) → probability of each next token."""


@dataclass
class ScriptedState:
    images: list[int]
    rows: list[tuple[int, tuple[int, ...]]]
    """(image, tokens fed so far) of each decoder row."""


class ScriptedSession:
    """A session that reads probabilities from a script and records its calls."""

    capabilities = STEPWISE
    device = "cpu"

    def __init__(self, script: Script, vocabulary: int = 6, max_images: int = 1000, max_rows: int = 1000) -> None:
        self.script, self.vocabulary, self.max_images, self.max_rows = script, vocabulary, max_images, max_rows
        self.fed: list[list[list[int]]] = []
        self.positions: list[list[int]] = []
        self.selected: list[tuple[list[int], list[int]]] = []

    def start(self, images: int) -> ScriptedState:
        return ScriptedState(list(range(images)), [(image, ()) for image in range(images)])

    def encode(self, inputs):
        """Return the index of each image from its brightness: image k of these tests is grey k * 8, not normalized."""
        pixels = inputs["pixels"]
        if len(pixels) > self.max_images:
            raise DeviceMemoryError("no room")
        images = [round(float(image.mean()) * 255 / 8) for image in pixels]
        return ScriptedState(images, [(image, ()) for image in images])

    def step(self, token_ids, state, positions):
        if len(token_ids) > self.max_rows:
            raise DeviceMemoryError("no room")
        self.fed.append(token_ids.tolist())
        self.positions.append(positions.tolist())
        num_beams = len(state.rows) // len(state.images)
        # The search depends on this order of rows.
        assert [image for image, _ in state.rows] == [image for image in state.images for _ in range(num_beams)]
        rows = [(image, (*before, *new)) for (image, before), new in zip(state.rows, token_ids.tolist(), strict=True)]
        logits = np.full((len(rows), len(positions), self.vocabulary), log(NEVER), dtype=np.float32)
        for row, (image, tokens) in enumerate(rows):
            for slot, position in enumerate(positions):
                for token, probability in self.script(image, tokens[: len(tokens) - token_ids.shape[1] + int(position) + 1]).items():
                    logits[row, slot, token] = log(probability)
        return logits, ScriptedState(state.images, rows)

    def select(self, state, rows, images):
        self.selected.append((rows.tolist(), images.tolist()))
        return ScriptedState([state.images[image] for image in images], [state.rows[row] for row in rows])

    def crop(self, state, length):
        return ScriptedState(state.images, [(image, tokens[:length]) for image, tokens in state.rows])

    def info(self):
        return EngineInfo(runtime="scripted", versions={}, device=self.device, providers=(), threads=1, precision="fp32")


def table(*images: Mapping[tuple[int, ...], Mapping[int, float]]) -> Script:
    """Return a script for one table per image: tokens after [BOS] → probabilities."""
    return lambda image, tokens: images[image].get(tokens[1:], {EOS: 1.0})


def search(session: ScriptedSession, images: int, prompt: tuple[int, ...] = (BOS,), **options: float) -> list[Hypothesis]:
    return generate(
        session, session.start(images), np.array([prompt] * images), SPEC, GenerationConfig(**options), lambda phase, seconds: None
    )


# Greedy search takes "a" and the end token. Beam search finds "b c", which has the higher score per token.
FORK = {
    (): {A: 0.55, B: 0.45},
    (A,): {EOS: 0.6, C: 0.4},
    (B,): {C: 0.9, EOS: 0.1},
    (B, C): {EOS: 0.8, A: 0.2},
    (A, C): {EOS: 0.6, A: 0.4},
}


class TestGreedy:
    def test_takes_the_likeliest_token_and_scores_the_mean_log_probability(self):
        (hypothesis,) = search(ScriptedSession(table(FORK)), 1)
        assert hypothesis.token_ids == (BOS, A, EOS)
        assert hypothesis.score == pytest.approx((log(0.55) + log(0.6)) / 2, abs=1e-6)

    def test_the_score_is_divided_by_length_to_the_power_of_the_length_penalty(self):
        (hypothesis,) = search(ScriptedSession(table(FORK)), 1, length_penalty=2.0)
        assert hypothesis.score == pytest.approx((log(0.55) + log(0.6)) / 4, abs=1e-6)

    def test_the_end_is_not_allowed_before_min_length(self):
        (hypothesis,) = search(ScriptedSession(table(FORK)), 1, min_length=3)
        assert hypothesis.token_ids == (BOS, A, C, EOS)
        assert hypothesis.score == pytest.approx((log(0.55) + log(0.4) + log(0.6)) / 3, abs=1e-6)

    def test_stops_at_max_length_without_an_end(self):
        (hypothesis,) = search(ScriptedSession(lambda image, tokens: {C: 1.0}), 1, max_length=5)
        assert hypothesis.token_ids == (BOS, C, C, C, C)

    def test_finished_rows_are_dropped_and_captions_stay_in_place(self):
        script = table(
            {(): {A: 1.0}, (A,): {EOS: 1.0}},
            {(): {EOS: 1.0}},
            {(): {B: 1.0}, (B,): {B: 1.0}, (B, B): {B: 1.0}, (B, B, B): {EOS: 1.0}},
            {(): {C: 1.0}, (C,): {EOS: 1.0}},
        )
        session = ScriptedSession(script)
        hypotheses = search(session, 4)
        assert [each.token_ids for each in hypotheses] == [(BOS, A, EOS), (BOS, EOS), (BOS, B, B, B, EOS), (BOS, C, EOS)]
        assert session.selected == [([0, 2, 3], [0, 2, 3]), ([1], [1])]
        assert session.fed == [[[BOS]] * 4, [[A], [B], [C]], [[B]], [[B]]]

    def test_select_is_not_called_while_no_row_has_finished(self):
        session = ScriptedSession(lambda image, tokens: {A: 1.0})
        search(session, 3, max_length=6)
        assert session.selected == []

    def test_the_prompt_is_fed_in_one_step_and_only_its_last_logits_are_requested(self):
        session = ScriptedSession(lambda image, tokens: {B: 1.0} if len(tokens) < 4 else {EOS: 1.0})
        hypotheses = search(session, 2, prompt=(BOS, A, C))
        assert [each.token_ids for each in hypotheses] == [(BOS, A, C, B, EOS)] * 2
        assert session.fed == [[[BOS, A, C]] * 2, [[B]] * 2]
        assert session.positions == [[2], [0]]


class TestBeam:
    def test_finds_the_likelier_caption_that_greedy_misses(self):
        (hypothesis,) = search(ScriptedSession(table(FORK)), 1, num_beams=2)
        assert hypothesis.token_ids == (BOS, B, C, EOS)
        assert hypothesis.score == pytest.approx(log(0.45 * 0.9 * 0.8) / 3, abs=1e-6)

    @pytest.mark.parametrize(
        ("length_penalty", "token_ids", "score"),
        [
            (0.0, (BOS, A, EOS), log(0.33)),  # 0.33 against 0.324
            (1.0, (BOS, B, C, EOS), log(0.324) / 3),  # -0.376 against -0.554
            (-1.0, (BOS, A, EOS), log(0.33) * 2),
        ],
    )
    def test_length_penalty_decides_between_short_and_long(self, length_penalty, token_ids, score):
        (hypothesis,) = search(ScriptedSession(table(FORK)), 1, num_beams=2, length_penalty=length_penalty)
        assert hypothesis.token_ids == token_ids
        assert hypothesis.score == pytest.approx(score, abs=1e-6)

    def test_rows_follow_their_parents(self):
        session = ScriptedSession(table(FORK))
        search(session, 1, num_beams=2)
        # One row becomes two; then "b c" (from row 1) overtakes "a c" (from row 0).
        assert session.selected == [([0, 0], [0]), ([1, 0], [0])]
        assert session.fed == [[[BOS]], [[A], [B]], [[C], [C]]]

    def test_the_end_is_not_allowed_before_min_length(self):
        script = table({(): {EOS: 0.9, A: 0.1}, (A,): {EOS: 0.5, B: 0.5}, (A, B): {EOS: 1.0}})
        assert search(ScriptedSession(script), 1, num_beams=2)[0].token_ids == (BOS, EOS)
        (hypothesis,) = search(ScriptedSession(script), 1, num_beams=2, min_length=3)
        assert hypothesis.token_ids == (BOS, A, B, EOS)
        assert hypothesis.score == pytest.approx(log(0.1 * 0.5) / 3, abs=1e-5)

    def test_captions_cut_by_max_length_compete_with_finished_ones(self):
        (hypothesis,) = search(ScriptedSession(table(FORK)), 1, num_beams=2, max_length=3)
        assert hypothesis.token_ids == (BOS, B, C)  # 0.405 against 0.33 of "a [SEP]"
        assert hypothesis.score == pytest.approx(log(0.405) / 2, abs=1e-6)

    def test_finished_images_are_dropped_with_all_their_rows(self):
        early = {(): {EOS: 0.6, A: 0.4}, (A,): {EOS: 1.0}}
        session = ScriptedSession(table(early, FORK, early))
        hypotheses = search(session, 3, num_beams=2)
        assert [each.token_ids for each in hypotheses] == [(BOS, A, EOS), (BOS, B, C, EOS), (BOS, A, EOS)]  # ln .4 / 2 > ln .6
        assert session.selected == [([0, 0, 1, 1, 2, 2], [0, 1, 2]), ([3, 2], [1])]

    def test_an_end_token_ranked_below_num_beams_finishes_no_hypothesis(self):
        # With 2 beams, the candidates are "b" 0.5, "c" 0.3, [SEP] 0.2. The end token is third, so the empty caption is not a hypothesis.
        script = table({(): {B: 0.5, C: 0.3, EOS: 0.2}, (B,): {A: 1.0}, (C,): {A: 1.0}, (B, A): {A: 1.0}, (C, A): {A: 1.0}})
        (hypothesis,) = search(ScriptedSession(script), 1, num_beams=2, length_penalty=0.0, max_length=4)
        assert hypothesis.token_ids == (BOS, B, A, A)
        assert hypothesis.score == pytest.approx(log(0.5), abs=1e-5)


def test_each_image_has_a_prompt_of_its_own():
    script = table({(A,): {C: 1.0}, (A, C): {EOS: 1.0}}, {(B,): {A: 1.0}, (B, A): {EOS: 1.0}})
    for num_beams in (1, 2):
        session = ScriptedSession(script)
        prompts, decoding = np.array([[BOS, A], [BOS, B]]), GenerationConfig(num_beams=num_beams)
        first, second = generate(session, session.start(2), prompts, SPEC, decoding, lambda phase, seconds: None)
        assert (first.token_ids, second.token_ids) == ((BOS, A, C, EOS), (BOS, B, A, EOS))


def test_sequences_of_one_length_are_grouped():
    groups = [(indices, ids.tolist()) for indices, ids in by_length([[1], [1, 2], [1], [3, 4, 5], [1, 9]])]
    assert groups == [([0, 2], [[1], [1]]), ([1, 4], [[1, 2], [1, 9]]), ([3], [[3, 4, 5]])]


class TestPhaseTimer:
    @pytest.mark.parametrize("num_beams", [1, 2])
    def test_one_call_for_the_first_token_and_one_for_each_further_token(self, num_beams):
        session, phases = ScriptedSession(lambda image, tokens: {A: 1.0}), []
        generate(
            session,
            session.start(3),
            np.array([[BOS, B]] * 3),
            SPEC,
            GenerationConfig(num_beams=num_beams, min_length=7, max_length=7),
            lambda phase, seconds: phases.append((phase, seconds >= 0)),
        )
        assert phases == [("first_token", True), ("step", True)] + [("token", True), ("step", True)] * 4

    def test_captioner_reports_reading_and_encoding_once_per_batch(self, captioner_with):
        session, phases = ScriptedSession(words_of_image, 64), Counter()
        captioner_with(session).caption(greys(5), batch_size=2, timer=lambda phase, seconds: phases.update([phase]))
        # Batches of images (0, 1), (2, 3) and (4): the longest caption of image k has k words and an end.
        assert phases == {"read": 3, "encode": 3, "first_token": 3, "token": 1 + 3 + 4, "step": 2 + 4 + 5}


def words_of_image(image: int, tokens: tuple[int, ...]) -> Mapping[int, float]:
    """The caption of image k is k times the token 5 + k, then the end token of the tiny checkpoint (3)."""
    return {5 + image: 1.0} if len(tokens) <= image else {3: 1.0}


def greys(count: int) -> list[Image.Image]:
    return [Image.new("RGB", (32, 32), (8 * k, 8 * k, 8 * k)) for k in range(count)]


@pytest.fixture
def captioner_with(tiny_artifacts):
    """A function that returns a captioner with the tiny checkpoint's tokenizer, a given session and no normalization of images."""
    artifact = open_artifact(tiny_artifacts["onnx-fp32"])
    manifest = replace(artifact.manifest, image=replace(artifact.manifest.image, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)))
    tokens = CaptionTokenizer(artifact.path_of("tokenizer").read_bytes(), manifest.tokenizer)
    return lambda session: Captioner(session, tokens, manifest)


class TestDeviceMemory:
    def expected(self, count: int) -> list[tuple[int, ...]]:
        return [(62, *[5 + k] * k, 3) for k in range(count)]

    @pytest.mark.parametrize("max_images", [1, 2, 3, 7])
    @pytest.mark.parametrize("num_beams", [1, 2])
    def test_a_batch_that_does_not_fit_is_halved_and_captions_stay_in_order(self, captioner_with, max_images, num_beams):
        session = ScriptedSession(words_of_image, 64, max_images=max_images)
        hypotheses = captioner_with(session).caption(greys(7), batch_size=7, num_beams=num_beams)
        assert [each.token_ids for each in hypotheses] == self.expected(7)

    def test_running_out_in_a_later_step_is_halved_as_well(self, captioner_with):
        session = ScriptedSession(words_of_image, 64, max_rows=4)
        hypotheses = captioner_with(session).caption(greys(7), batch_size=7, num_beams=2)
        assert [each.token_ids for each in hypotheses] == self.expected(7)
        assert max(len(rows) for rows in session.fed) == 4

    def test_an_unreadable_image_keeps_its_position_while_the_batch_is_halved(self, captioner_with):
        session = ScriptedSession(words_of_image, 64, max_images=1)
        images = greys(4)
        hypotheses = captioner_with(session).caption([images[0], b"", images[1], images[2], images[3]], batch_size=5)
        assert [each.token_ids for each in hypotheses if each.error is None] == self.expected(4)
        assert [(each.error, each.text, each.token_ids) for each in hypotheses][1] == ("<bytes>: is empty; copy it again", "", ())

    @pytest.mark.parametrize(
        ("device", "error", "remedy"), [("cuda", UnavailableError, "--device cpu"), ("cpu", OutOfMemoryError, "smaller")]
    )
    def test_one_image_that_does_not_fit_is_an_error_that_names_a_remedy(self, captioner_with, device, error, remedy):
        session = ScriptedSession(words_of_image, 64, max_images=0)
        session.device = device
        with pytest.raises(error) as caught:
            captioner_with(session).caption(greys(3), batch_size=3)
        assert remedy in str(caught.value)
        assert ("--device" in str(caught.value)) == (device != "cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 0}, "num_beams must be at least 1"),
        ({"num_beams": 32}, "32 beams are too many for a vocabulary of 64"),
        ({"min_length": 21}, "lengths must satisfy 0 <= min_length <= max_length and max_length >= 2"),
        ({"min_length": -1}, "lengths must satisfy 0 <= min_length <= max_length and max_length >= 2"),
        ({"max_length": 33}, "max_length 33 is more than the 32 positions of this model"),
        ({"max_length": 1}, "lengths must satisfy 0 <= min_length <= max_length and max_length >= 2"),
        ({"prompt": "a photo of", "max_length": 4}, "the prompt takes 4 tokens, so max_length must be more than that; it is 4"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
    ],
)
def test_an_invalid_request_is_refused_before_the_model_runs(captioner_with, options, message):
    session = ScriptedSession(words_of_image, 64)
    with pytest.raises(RequestError) as caught:
        captioner_with(session).caption(greys(1), **options)
    assert str(caught.value) == message
    assert session.fed == []


def test_no_images_give_no_captions(captioner_with):
    assert captioner_with(ScriptedSession(words_of_image, 64)).caption([]) == []


@pytest.mark.parametrize("size", [3, 64, 65, 400, 5000])
@pytest.mark.parametrize("count", [1, 3, 6])
def test_top_k_equals_a_full_sort(size, count):
    """Many values are equal, and a third are -inf."""
    values = np.random.default_rng(size).integers(0, 50, size).astype(np.float32)
    values[: size // 3] = -np.inf
    expected = sorted(range(size), key=lambda index: (-values[index], index))[:count]
    assert top_k(values, min(count, size)).tolist() == expected
