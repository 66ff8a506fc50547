"""Refused clients get turns: a crowd comes back as fast as the model runs, and nobody waits longer than the queue."""

from collections import Counter
from math import ceil

import pytest

from toolkit.serve.return_times import ReturnTimes


def test_a_client_alone_comes_back_when_the_queue_has_room():
    returns = ReturnTimes(10)
    assert [returns.next(now, room_s=2.5, image_s=0.4) for now in (100, 200, 300)] == pytest.approx([2.5] * 3)


def test_a_crowd_comes_back_as_fast_as_the_model_runs():
    returns = ReturnTimes(10)
    seconds = Counter(ceil(returns.next(100, room_s=0.4, image_s=0.25)) for _ in range(40))
    assert seconds == {1: 3} | dict.fromkeys(range(2, 11), 4) | {11: 1}


def test_turns_are_given_again_after_the_span():
    """A crowd of a thousand has the same number of clients in each second, and none waits longer than `room_s + span_s`."""
    returns = ReturnTimes(10)
    times = [returns.next(100, room_s=3, image_s=0.5) for _ in range(1_050)]
    assert (min(times), max(times)) == (3, 13)
    assert set(Counter(times).values()) == {50}


def test_turns_that_are_over_are_not_given():
    returns = ReturnTimes(10)
    for _ in range(10):
        returns.next(100, room_s=1, image_s=1)
    assert returns.next(110, room_s=1, image_s=1) == 1
    assert returns.next(114, room_s=8, image_s=1) == 8
