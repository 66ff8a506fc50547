"""Greedy search with drafts returns what greedy search returns, whatever is drafted, and takes fewer steps if drafts are right.

The session's logits depend on the prefix only, so the expected captions are those of the search without drafts.
"""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtimes.artifact.generation import GenerationConfig
from runtimes.artifact.manifest import TokenizerSpec
from runtimes.decoding.drafts.drafter import Drafter
from runtimes.decoding.search import generate, generate_tokens

BOS, EOS = 1, 0
SPEC = TokenizerSpec(bos_id=BOS, eos_id=EOS, pad_id=BOS)
PROPERTIES = settings(derandomize=True, deadline=None, max_examples=80)
NO_COST = (1.0,) * 6


@dataclass(frozen=True)
class PrefixState:
    tokens: tuple[int, ...]
    """Tokens in the cache."""


class PrefixSession:
    """Logits are a function of the prefix. Its calls are recorded and checked against the protocol."""

    capabilities = frozenset({"step"})

    def __init__(self, seed, vocabulary, limit):
        self.seed, self.vocabulary, self.limit = seed, vocabulary, limit
        self.steps = self.cropped = 0
        self.state = None

    def start(self):
        self.state = PrefixState(())
        return self.state

    def step(self, token_ids, state, positions):
        assert state is self.state, "a state is used once"
        assert token_ids.shape[0] == 1
        new = token_ids[0].tolist()
        assert len(state.tokens) + len(new) <= self.limit, "more tokens than the model has positions"
        assert positions.tolist() == list(range(len(new) - len(positions), len(new)))
        logits = [self.logits_after((*state.tokens, *new[: position + 1])) for position in positions.tolist()]
        self.steps += 1
        self.state = PrefixState((*state.tokens, *new))
        return np.stack(logits)[None], self.state

    def crop(self, state, length):
        assert state is self.state
        assert length < len(state.tokens), "nothing to cut"
        self.cropped += 1
        self.state = PrefixState(state.tokens[:length])
        return self.state

    def logits_after(self, prefix):
        random = np.random.default_rng([self.seed, *prefix[-3:]])
        return (random.permutation(self.vocabulary) * 0.5 + random.uniform(0, 0.1, self.vocabulary)).astype(np.float32)


def search(session, prompt, config, drafter=None):
    phases = []
    (hypothesis,) = generate(
        session, session.start(), np.array([prompt]), SPEC, config, lambda phase, seconds: phases.append(phase), drafter=drafter
    )
    return hypothesis, phases


@st.composite
def requests(draw):
    vocabulary = draw(st.integers(2, 6))
    tokens = st.integers(0, vocabulary - 1)
    prompt = (BOS, *draw(st.lists(st.integers(1, vocabulary - 1), max_size=3)))
    longest = max(2, len(prompt) + draw(st.integers(1, 12)))
    config = GenerationConfig(
        min_length=draw(st.integers(0, longest)),
        max_length=longest,
        length_penalty=draw(st.sampled_from([0.0, 1.0])),
        repetition_penalty=draw(st.sampled_from([1.0, 1.0, 1.7, 0.5])),
        no_repeat_ngram_size=draw(st.sampled_from([0, 0, 2])),
        bad_words_ids=draw(st.lists(st.lists(tokens, min_size=1, max_size=2).map(tuple), max_size=2).map(tuple)),
        suppress_tokens=draw(st.lists(tokens, max_size=1).map(tuple)),
    )
    table = draw(
        st.dictionaries(
            st.lists(tokens, min_size=1, max_size=3).map(tuple), st.tuples(tokens, st.sampled_from([0.3, 0.5, 0.9, 1.0])), max_size=25
        )
    )
    costs = draw(st.sampled_from([NO_COST, (1.0, 1.1, 1.2, 1.3), (1.0,), (1.0, 2.0, 2.0, 2.0)]))
    return draw(st.integers(0, 2**32)), vocabulary, prompt, config, table, costs


@PROPERTIES
@given(requests())
def test_drafts_change_neither_tokens_nor_log_probabilities(request):
    seed, vocabulary, prompt, config, table, costs = request
    plain, drafted = (PrefixSession(seed, vocabulary, config.max_length) for _ in range(2))
    expected, _ = search(plain, prompt, config)
    hypothesis, phases = search(drafted, prompt, config, Drafter(table, costs, EOS))
    assert hypothesis == expected
    assert drafted.steps <= plain.steps
    generated = len(expected.token_ids) - len(prompt)
    assert phases.count("first_token") == 1
    assert phases.count("token") == generated - 1
    assert phases.count("step") == drafted.steps


@PROPERTIES
@given(requests())
def test_tokens_are_streamed_with_drafts_as_without(request):
    seed, vocabulary, prompt, config, table, costs = request
    expected, _ = search(PrefixSession(seed, vocabulary, config.max_length), prompt, config)
    session = PrefixSession(seed, vocabulary, config.max_length)
    steps = generate_tokens(session, session.start(), np.array([prompt]), SPEC, config, 0, Drafter(table, costs, EOS))
    tokens, log_probabilities = zip(*steps, strict=True)
    assert (*prompt, *tokens) == expected.token_ids
    assert log_probabilities == expected.log_probabilities


@PROPERTIES
@given(requests(), st.integers(1, 4))
def test_a_drafter_that_learns_changes_no_caption(request, repeats):
    seed, vocabulary, prompt, config, table, costs = request
    expected, _ = search(PrefixSession(seed, vocabulary, config.max_length), prompt, config)
    drafter = Drafter(table, costs, EOS, learning=True)
    for _ in range(repeats):
        assert search(PrefixSession(seed, vocabulary, config.max_length), prompt, config, drafter)[0] == expected


class NoisySession(PrefixSession):
    """Each logit of a step that feeds several tokens differs by up to a quarter, as rounding in INT8 makes it."""

    def step(self, token_ids, state, positions):
        logits, state = super().step(token_ids, state, positions)
        if len(positions) > 1:
            logits += np.random.default_rng([self.seed, self.steps]).uniform(-0.25, 0.25, logits.shape).astype(np.float32)
        return logits, state


@PROPERTIES
@given(requests())
def test_margins_below_the_tolerance_decide_nothing(request):
    seed, vocabulary, prompt, config, table, costs = request
    expected, _ = search(PrefixSession(seed, vocabulary, config.max_length), prompt, config)
    session = NoisySession(seed, vocabulary, config.max_length)
    tolerance = 0.5 * max(config.repetition_penalty, 1.0)  # the penalty scales noise with the logits
    hypothesis, phases = search(session, prompt, config, Drafter(table, costs, EOS, tolerance=tolerance + 1e-3))
    assert hypothesis.token_ids == expected.token_ids
    assert phases.count("first_token") + phases.count("token") == len(expected.token_ids) - len(prompt)
    assert phases.count("step") == session.steps


def right_table(session, prompt, config):
    """Return predictions that are right for every context of the caption that has been seen once."""
    ids = search(session, prompt, config)[0].token_ids
    return {ids[max(0, position - 3) : position]: (ids[position], 1.0) for position in range(1, len(ids))}


@pytest.mark.parametrize("drafted", [1, 2, 5])
def test_right_drafts_save_steps_and_cut_nothing(drafted):
    config = GenerationConfig(min_length=13, max_length=13)
    table = right_table(PrefixSession(3, 50, 13), (BOS,), config)
    session = PrefixSession(3, 50, 13)
    hypothesis, _ = search(session, (BOS,), config, Drafter(table, (1.0,) * (drafted + 1), EOS))
    assert len(hypothesis.token_ids) == 13
    assert session.steps == -(-12 // (drafted + 1))
    assert session.cropped == 0


def test_wrong_drafts_are_cut_from_the_cache():
    config = GenerationConfig(min_length=10, max_length=10)
    right = right_table(PrefixSession(3, 50, 10), (BOS,), config)
    wrong = {context: ((token + 1) % 50, 1.0) for context, (token, _) in right.items()}
    session = PrefixSession(3, 50, 10)
    assert search(session, (BOS,), config, Drafter(wrong, (1.0, 1.0), EOS))[0] == search(PrefixSession(3, 50, 10), (BOS,), config)[0]
    assert session.steps == 9
    assert session.cropped == 8, "the last step ends the caption or has no room for a draft"


def test_batches_run_without_drafts():
    session = BatchSession()
    drafter = Drafter({(BOS,): (2, 1.0), (2,): (2, 1.0)}, NO_COST, EOS)
    hypotheses = generate(
        session, (), np.array([[BOS], [BOS]]), SPEC, GenerationConfig(max_length=5), lambda phase, seconds: None, drafter=drafter
    )
    assert [each.token_ids for each in hypotheses] == [(BOS, 2, 2, 2, 2)] * 2
    assert session.widths == [1, 1, 1, 1]


class BatchSession:
    """Always chooses token 2, and records how many tokens each step feeds."""

    def __init__(self):
        self.widths = []

    def step(self, token_ids, state, positions):
        self.widths.append(token_ids.shape[1])
        logits = np.zeros((len(token_ids), len(positions), 4), np.float32)
        logits[..., 2] = 1.0
        return logits, state
