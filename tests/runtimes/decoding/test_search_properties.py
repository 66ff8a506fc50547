"""Both searches against brute force over all captions of tiny vocabularies, with logits that depend on image and prefix.

The reference has no batches, states or candidates: it sums float64 log-probabilities over whole captions.
"""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtimes.artifact.generation import GenerationConfig
from runtimes.artifact.manifest import TokenizerSpec
from runtimes.decoding.search import generate

BOS, EOS = 1, 0
SPEC = TokenizerSpec(bos_id=BOS, eos_id=EOS, pad_id=BOS)
PROPERTIES = settings(derandomize=True, deadline=None, max_examples=40)


def logits_after(seed, image, prefix, vocabulary):
    """Return logits f32[V] with different values, whose gaps are far above the rounding of float32."""
    random = np.random.default_rng([seed, image, *prefix])
    return (random.permutation(vocabulary) * 0.5 + random.uniform(0, 0.1, vocabulary)).astype(np.float32)


class ScriptedSession:
    """A session whose state is the list of (image, prefix) of its rows; the rows of an image are adjacent."""

    def __init__(self, seed, vocabulary):
        self.seed, self.vocabulary = seed, vocabulary

    def step(self, token_ids, state, positions):
        rows = [(image, (*prefix, *new)) for (image, prefix), new in zip(state, token_ids.tolist(), strict=True)]
        assert positions.tolist() == [token_ids.shape[1] - 1]
        return np.stack([logits_after(self.seed, image, prefix, self.vocabulary)[None] for image, prefix in rows]), rows

    def select(self, state, rows, images):
        chosen = [state[row] for row in rows]
        assert len(chosen) % len(images) == 0
        return chosen


def search(seed, vocabulary, images, prompt, decoding):
    session = ScriptedSession(seed, vocabulary)
    return generate(
        session, [(image, ()) for image in range(images)], np.array([prompt] * images), SPEC, decoding, lambda phase, seconds: None
    )


def log_probability(seed, image, prefix, vocabulary):
    logits = logits_after(seed, image, prefix, vocabulary).astype(np.float64)
    return logits - np.log(np.exp(logits).sum())


def score(seed, image, prompt, caption, vocabulary, penalty):
    total = sum(log_probability(seed, image, (*prompt, *caption[:at]), vocabulary)[token] for at, token in enumerate(caption))
    return total / len(caption) ** penalty


def every_caption(prompt, vocabulary, decoding):
    """Yield every caption that a search may return: it ends with the end token, after min_length, or has max_length tokens."""
    words = [token for token in range(vocabulary) if token != EOS]
    longest = decoding.max_length - len(prompt)
    for size in range(1, longest + 1):
        for start in product(words, repeat=size - 1):
            if len(prompt) + size - 1 >= decoding.min_length:
                yield (*start, EOS)
            if size == longest:
                yield from ((*start, word) for word in words)


@st.composite
def requests(draw, num_beams):
    prompt = (BOS, *draw(st.lists(st.integers(1, 2), max_size=2)))
    longest = len(prompt) + draw(st.integers(1, 4))
    decoding = GenerationConfig(
        num_beams=draw(num_beams),
        min_length=draw(st.integers(0, longest)),
        max_length=max(longest, 2),
        length_penalty=draw(st.sampled_from([-1, 0, 1, 2])),
    )
    return draw(st.integers(0, 2**32)), draw(st.integers(3, 4)), draw(st.integers(1, 3)), prompt, decoding


@PROPERTIES
@given(requests(st.just(1)))
def test_greedy_search_takes_the_likeliest_allowed_token_each_time(request):
    seed, vocabulary, images, prompt, decoding = request
    for image, hypothesis in enumerate(search(seed, vocabulary, images, prompt, decoding)):
        caption = []
        while len(prompt) + len(caption) < decoding.max_length and EOS not in caption:
            likely = log_probability(seed, image, (*prompt, *caption), vocabulary)
            allowed = [token for token in range(vocabulary) if token != EOS or len(prompt) + len(caption) >= decoding.min_length]
            caption.append(max(allowed, key=lambda token: likely[token]))
        assert hypothesis.token_ids == (*prompt, *caption)
        assert hypothesis.score == pytest.approx(score(seed, image, prompt, caption, vocabulary, decoding.length_penalty), abs=1e-4)


@PROPERTIES
@given(requests(st.just(200)))
def test_with_a_beam_for_every_prefix_the_best_of_all_captions_is_found(request):
    seed, vocabulary, images, prompt, decoding = request
    for image, hypothesis in enumerate(search(seed, vocabulary, images, prompt, decoding)):
        best = max(
            score(seed, image, prompt, caption, vocabulary, decoding.length_penalty)
            for caption in every_caption(prompt, vocabulary, decoding)
        )
        assert hypothesis.score == pytest.approx(best, abs=1e-4)
        assert hypothesis.token_ids[len(prompt) :] in set(every_caption(prompt, vocabulary, decoding))
        own = score(seed, image, prompt, hypothesis.token_ids[len(prompt) :], vocabulary, decoding.length_penalty)
        assert own == pytest.approx(best, abs=1e-4)


def narrow(seed, image, prompt, vocabulary, decoding):
    """Beam search of one image by its definition (transformers, `early_stopping=False`): extend, rank, move finished captions.

    Returns the best finished caption and its score.
    """
    running, finished = [((), 0.0)], []
    for size in range(1, decoding.max_length - len(prompt) + 1):
        extended = []
        for caption, total in running:
            likely = log_probability(seed, image, (*prompt, *caption), vocabulary)
            excluded = len(prompt) + len(caption) < decoding.min_length
            extended += [
                ((*caption, token), -np.inf if excluded and token == EOS else total + likely[token]) for token in range(vocabulary)
            ]
        ranked = sorted(extended, key=lambda entry: -entry[1])[: 2 * decoding.num_beams]
        last = len(prompt) + size == decoding.max_length
        ended = [entry for entry in ranked[: decoding.num_beams] if last or entry[0][-1] == EOS]
        finished += [(total / size**decoding.length_penalty, caption) for caption, total in ended]
        finished = sorted(finished, reverse=True)[: decoding.num_beams]
        running = [entry for entry in ranked if entry[0][-1] != EOS and not last][: decoding.num_beams]
        if len(finished) == decoding.num_beams and running and running[0][1] / size**decoding.length_penalty <= finished[-1][0]:
            break
    return finished[0]


@PROPERTIES
@given(requests(st.integers(2, 4)))
def test_a_narrow_beam_search_equals_its_definition(request):
    seed, vocabulary, images, prompt, decoding = request
    for image, hypothesis in enumerate(search(seed, vocabulary, images, prompt, decoding)):
        best, caption = narrow(seed, image, prompt, vocabulary, decoding)
        assert hypothesis.token_ids == (*prompt, *caption)
        assert hypothesis.score == pytest.approx(best, abs=1e-4)
