"""Predictions from n-gram counts; expected probabilities were computed by hand from the formula of absolute discounting."""

import pytest

from runtimes.decoding.drafts.ngrams import ContextCounts, longest_match

BOS, EOS, A, MAN, DOG, RUNS = 1, 2, 3, 4, 5, 6


def counted(*texts, **options):
    counts = ContextCounts(**options)
    for text in texts:
        counts.add(text)
    return counts


def test_a_token_that_always_follows_is_predicted_with_discounted_confidence():
    counts = counted(*[[BOS, A]] * 4)
    # One 2-gram, which occurs four times: n1 = n2 = 0, so the discount is (0 + 1) / (0 + 0 + 1) = 1.
    assert counts.predict((BOS,)) == (A, pytest.approx((4 - 1) / 4))


def test_the_discount_comes_from_the_ngrams_that_occur_once_and_twice():
    counts = counted([BOS, A], [BOS, A], [A, MAN], [A, DOG])
    # n1 = 2, n2 = 1: discount (2 + 1) / (2 + 2 + 1) = 0.6.
    assert counts.predict((BOS,)) == (A, pytest.approx((2 - 0.6) / 2))
    token, confidence = counts.predict((A,))
    assert token in (MAN, DOG)
    assert confidence == pytest.approx((1 - 0.6) / 2)


def test_a_context_that_occurred_once_relies_on_its_shorter_context():
    often = [[A, MAN]] * 8
    counts = counted(*often, [BOS, A, MAN])
    shorter = counts.predict((A,))[1]
    assert counts.predict((BOS, A)) == (MAN, pytest.approx(shorter)), "discount 1: the count of one gives nothing"


def test_an_unknown_context_has_the_prediction_of_its_end_and_nothing_without_one():
    counts = counted(*[[BOS, A, MAN]] * 3)
    assert counts.predict((DOG, A)) == counts.predict((A,))
    assert counts.predict((DOG,)) is None


def test_a_prior_takes_the_place_of_shorter_contexts_and_gives_way_to_counts():
    counts = counted(prior={(A,): (DOG, 0.9)})
    assert counts.predict((A,)) == (DOG, 0.9)
    for _ in range(20):
        counts.add([A, MAN])
    token, confidence = counts.predict((A,))
    assert token == MAN
    assert confidence > 0.9


def test_only_tokens_from_the_start_are_counted():
    counts = ContextCounts()
    assert counts.add([BOS, A, MAN, EOS], start=2) == [(A,), (BOS, A), (MAN,), (A, MAN), (BOS, A, MAN)]
    assert counts.predict((BOS,)) is None


def test_the_number_of_contexts_is_limited():
    counts = counted(range(1000), max_contexts=50)
    assert len(list(counts)) == 50


def test_the_longest_context_wins():
    predictions = {(A,): (MAN, 0.5), (BOS, A): (DOG, 0.6)}
    assert longest_match(predictions, [9, BOS, A]) == (DOG, 0.6)
    assert longest_match(predictions, [9, A]) == (MAN, 0.5)
    assert longest_match(predictions, [9]) is None
    assert longest_match(predictions, []) is None
