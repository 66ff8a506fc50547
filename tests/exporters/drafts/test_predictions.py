"""Predictions from texts of random grammars: their confidence holds on other texts, and texts without regularity give no drafts."""

import random

import pytest

from exporters.drafts import predictions as module
from exporters.drafts.predictions import make_predictions, measure_reliability
from runtimes.decoding.drafts.drafter import MIN_CONFIDENCE, Drafter
from runtimes.decoding.drafts.ngrams import longest_match

BOS, EOS = 1, 0


def grammar_texts(count, seed, regularity=0.7):
    """Each word has one likely follower; other followers are drawn at random."""
    chance = random.Random(seed)
    texts = []
    for _ in range(count):
        words = [BOS]
        for _ in range(12):
            words.append(2 + (3 * words[-1] + 1) % 40 if chance.random() < regularity else chance.randrange(2, 42))
        texts.append([*words, EOS])
    return texts


def shuffled(texts, seed):
    words = [word for text in texts for word in text[1:-1]]
    random.Random(seed).shuffle(words)
    following = iter(words)
    return [[BOS, *(next(following) for _ in text[1:-1]), EOS] for text in texts]


def skewed_texts(count, seed):
    """A quarter of all words are one word, as articles are in captions."""
    chance = random.Random(seed)
    words = [2] * 25 + list(range(3, 78))
    return [[BOS, *chance.choices(words, k=10), EOS] for _ in range(count)]


def test_confidence_is_the_share_of_right_predictions_on_other_texts():
    table = make_predictions(grammar_texts(300, seed=0), EOS)
    expected = right = total = 0
    for ids in grammar_texts(100, seed=1):
        for position in range(1, len(ids)):
            prediction = longest_match(table, ids[:position])
            if prediction and prediction[1] >= MIN_CONFIDENCE:
                expected, right, total = expected + prediction[1], right + (prediction[0] == ids[position]), total + 1
    assert right / total == pytest.approx(expected / total, abs=0.05)
    assert total > 900


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("make", [skewed_texts, lambda count, seed: shuffled(grammar_texts(count, seed), seed)], ids=["skewed", "shuffled"])
def test_texts_without_regularity_give_no_drafts(make, seed):
    drafter = Drafter(make_predictions(make(200, seed), EOS), (1.0, 1.2, 1.3, 1.4), EOS)
    drafts = [drafter.propose(ids[:position], 9) for ids in make(100, seed + 100) for position in range(1, len(ids))]
    assert sum(map(bool, drafts)) <= 0.02 * len(drafts)


def test_a_table_without_redundant_contexts_drafts_the_same():
    texts = grammar_texts(100, seed=0, regularity=1.0)
    table = make_predictions(texts, EOS)
    assert max(map(len, table)) == 1, "each word determines the next"
    assert all(longest_match(table, [word])[0] == 2 + (3 * word + 1) % 40 for (word,) in table)


def test_reliability_of_regular_random_and_few_texts():
    assert measure_reliability(grammar_texts(200, 0, regularity=1.0), EOS) > 0.98
    assert measure_reliability(skewed_texts(200, 0), EOS) < 0.8
    assert measure_reliability([[BOS, 2, EOS]], EOS) == 0.0


def test_the_most_frequent_contexts_are_kept(monkeypatch):
    monkeypatch.setattr(module, "MAX_ENTRIES", 3)
    texts = [[BOS, 2, 3, EOS]] * 40 + [[BOS, 4, 5, EOS]] * 4
    kept = set(make_predictions(texts, EOS))
    assert len(kept) == 3
    assert {(BOS,), (2,)} < kept


def test_equal_texts_give_equal_tables():
    assert list(make_predictions(grammar_texts(50, 0), EOS).items()) == list(make_predictions(grammar_texts(50, 0), EOS).items())
