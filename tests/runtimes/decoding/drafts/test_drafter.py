"""What is drafted, from predictions with given confidences and given costs of steps."""

import pytest

from runtimes.artifact import json_dataclass
from runtimes.decoding.drafts.drafter import Drafter, DraftSpec

EOS = 0
CHAIN = {(n,): (n + 1, 0.9) for n in range(1, 20)}
CHEAP = (1.0, 1.1, 1.2, 1.3, 1.4, 1.5)


def test_a_draft_is_as_long_as_it_pays():
    assert Drafter(CHAIN, CHEAP, EOS).propose([1], limit=9) == [2, 3, 4, 5, 6]
    # Expected tokens 1, 1.9, 2.71 over costs 1, 1.5, 3: rates 1, 1.27, 0.90.
    assert Drafter(CHAIN, (1.0, 1.5, 3.0), EOS).propose([1], limit=9) == [2]
    assert Drafter(CHAIN, (1.0, 2.0, 3.0), EOS).propose([1], limit=9) == []


def test_a_costly_second_token_does_not_hide_a_cheap_third():
    # Rates 1, 1.9 / 1.95, 2.71 / 2.0.
    assert Drafter(CHAIN, (1.0, 1.95, 2.0), EOS).propose([1], limit=9) == [2, 3]


@pytest.mark.parametrize("limit", range(4))
def test_a_draft_has_at_most_limit_tokens(limit):
    assert Drafter(CHAIN, CHEAP, EOS).propose([1], limit=limit) == [2, 3, 4][:limit]


def test_a_draft_stops_before_the_end_token():
    assert Drafter({**CHAIN, (3,): (EOS, 1.0)}, CHEAP, EOS).propose([1], limit=9) == [2, 3]


@pytest.mark.parametrize(("confidence", "draft"), [(0.39, []), (0.41, [2])])
def test_a_draft_is_right_with_at_least_40_percent(confidence, draft):
    assert Drafter({(1,): (2, confidence)}, (1.0, 1.0), EOS).propose([1], limit=9) == draft


def test_confidences_of_a_draft_multiply():
    table = {(1,): (2, 0.6), (2,): (3, 0.6), (3,): (4, 0.9)}
    assert Drafter(table, CHEAP, EOS).propose([1], limit=9) == [2], "0.6 * 0.6 is below 0.4"


def test_without_a_prediction_nothing_is_drafted():
    assert Drafter({}, CHEAP, EOS).propose([1], limit=9) == []


def test_a_learning_drafter_drafts_what_it_has_seen_and_another_does_not():
    learning, fixed = (Drafter({}, CHEAP, EOS, learning=learning) for learning in (True, False))
    for drafter in (learning, fixed):
        for _ in range(6):
            drafter.learn([1, 5, 6, 7, EOS], start=1)
    assert learning.propose([1, 5], limit=9) == [6, 7]
    assert fixed.propose([1, 5], limit=9) == []


def test_what_is_learned_replaces_the_table():
    drafter = Drafter({(1,): (9, 0.9)}, CHEAP, EOS, learning=True)
    assert drafter.propose([1], limit=1) == [9]
    for _ in range(20):
        drafter.learn([1, 5, EOS], start=1)
    assert drafter.propose([1], limit=1) == [5]


@pytest.mark.parametrize(
    "changes",
    [
        {"step_costs": []},
        {"tolerance": -1.0},
        {"tolerance": float("nan")},
        {"step_costs": [1.0] * 10},
        {"step_costs": [0.5]},
        {"step_costs": [float("nan")]},
        {"step_costs": [1e9]},
        {"x": 1},
    ],
)
def test_an_entry_of_a_manifest_with_unusable_values_is_refused(changes):
    document = {"step_costs": [1.0, 1.2], "tolerance": 0.1, "default": True, "same_captions": 3, "tokens_per_step": 1.5}
    assert json_dataclass.load(DraftSpec, document)[1] == []
    assert json_dataclass.load(DraftSpec, document | changes)[1] != []
