"""Recommendation: rows with made-up figures, and the expected choice, sentence and reasons."""

import pytest

from toolkit.report.recommendation import RULE, RULE_WITHOUT_QUALITY, recommend
from toolkit.stats.rows import KEYS


def row(case, seconds, size_mb=30, **figures):
    """Return a row without noise and without a loss of quality."""
    given = {
        "case": case,
        "seconds_per_image": seconds,
        "seconds_per_image_low": seconds,
        "seconds_per_image_high": seconds,
        "artifact_bytes": size_mb * 1_000_000,
        "size_ratio": size_mb / 100,
        "speedup": 0.3 / seconds,
        "bleu4_change": -0.006,
        "bleu4_change_low": -0.019,
        "bleu4_change_high": 0.008,
        "drift": 0.001,
        "drift_low": -0.001,
        "drift_high": 0.003,
        "exact_match": 0.8,
        "verdict": "no clear loss",
        "approximate": False,
        "drift_limit": 0.02,
    }
    return dict.fromkeys(KEYS) | given | figures


BASE = row("hf-fp32", 0.3, 100, verdict=None, drift=0.0, bleu4_change=0.0, exact_match=1.0)
SCORELESS = {"verdict": None, "drift": None, "bleu4_change": None}


def advice(*rows):
    return recommend([BASE, *rows])


def reason(recommendation, case):
    return dict(recommendation.reasons)[case]


def test_the_fastest_artifact_without_loss_is_chosen():
    advised = advice(row("onnx-fp32", 0.2, 100), row("onnx-int8", 0.1, 26))
    assert advised.chosen["case"] == "onnx-int8"
    assert advised.sentence == "ship onnx-int8: 3.0x faster, -74 % size, BLEU-4 -0.6 % [-1.9, +0.8], no clear loss"
    assert advised.rule == RULE
    assert advised.reasons == (
        ("hf-fp32", "the baseline"),
        ("onnx-fp32", "slower: 2.00x the time of onnx-int8"),
        ("onnx-int8", "chosen: the fastest"),
    )


def test_the_sentence_names_a_score_whose_change_has_an_interval():
    unknown = {"bleu4_change_low": None, "bleu4_change_high": None}
    cider = {"cider_change": -0.02, "cider_change_low": -0.15, "cider_change_high": 0.081}
    assert ", CIDEr-D -2.0 % [-15.0, +8.1], " in advice(row("onnx-int8", 0.1, **unknown, **cider)).sentence
    assert ", BLEU-4 -0.6 %, " in advice(row("onnx-int8", 0.1, **unknown)).sentence


def test_of_artifacts_with_overlapping_repeats_the_smallest_is_chosen():
    quick = row("onnx-int8", 0.10, 30, seconds_per_image_low=0.09, seconds_per_image_high=0.11)
    small = row("onnx-int4", 0.12, 24, seconds_per_image_low=0.11, seconds_per_image_high=0.13)
    advised = advice(quick, small)
    assert advised.chosen["case"] == "onnx-int4"
    assert reason(advised, "onnx-int4") == "chosen: as fast as onnx-int8 within noise, and smaller"
    assert reason(advised, "onnx-int8") == "as fast within noise, but not smaller (30 MB against 24)"
    apart = advice(quick, small | {"seconds_per_image_low": 0.1101})
    assert apart.chosen["case"] == "onnx-int8"
    assert reason(apart, "onnx-int4") == "slower: 1.20x the time of onnx-int8"


@pytest.mark.parametrize(
    ("figures", "why"),
    [
        ({"verdict": "loss: cider"}, "loss: cider"),
        ({"verdict": "loss: bleu4, drift", "drift_high": 0.01}, "loss: bleu4, drift"),
        ({"verdict": "loss: drift", "drift_high": 0.02}, "loss: drift"),
        ({"unstable": "repeats 12% apart"}, "unstable: repeats 12% apart"),
        ({"error": "out of memory"}, "failed: out of memory"),
        ({"verdict": None}, "its quality was not measured"),
    ],
)
def test_a_fast_artifact_can_be_excluded(figures, why):
    advised = advice(row("onnx-fp32", 0.2, 100), row("onnx-int8", 0.1, **figures))
    assert advised.chosen["case"] == "onnx-fp32"
    assert reason(advised, "onnx-int8") == why


def test_a_drift_within_the_recipes_limit_is_accepted():
    advised = advice(row("onnx-int8", 0.1, verdict="loss: drift", drift=0.01, drift_low=0.004, drift_high=0.0199))
    assert advised.sentence.endswith(", drift +0.0100 [+0.0040, +0.0199] nat/token within the recipe's limit")
    unknown = advice(row("onnx-int8", 0.1, verdict="loss: drift", drift_high=0.0001, drift_limit=None))
    assert unknown.chosen is None


def test_an_approximate_artifact_is_recognized_by_its_record_not_by_its_name():
    advised = advice(row("onnx-int8", 0.2), row("mine", 0.1, approximate=True))
    assert advised.chosen["case"] == "onnx-int8"
    assert reason(advised, "mine") == "approximate: select it by name if you want it"


def test_a_case_is_not_judged_by_a_shipped_recipe_with_the_same_name():
    """A user's recipe may have the name of a shipped one; the limit of the record decides."""
    stricter = advice(row("onnx-int8", 0.1, verdict="loss: drift", drift_high=0.015, drift_limit=0.01))
    assert stricter.chosen is None
    exact = advice(row("onnx-int8-fast", 0.1))
    assert exact.chosen["case"] == "onnx-int8-fast"


def test_records_without_quality_have_another_rule():
    advised = recommend([BASE | SCORELESS, row("onnx-int8", 0.1, exact_match=0.25, **SCORELESS)])
    assert advised.rule == RULE_WITHOUT_QUALITY
    assert advised.sentence == "ship onnx-int8: 3.0x faster, -70 % size, 25% of captions unchanged, quality not measured"


def test_without_a_baseline_the_sentence_has_the_time():
    advised = recommend([row("onnx-int8", 0.1, speedup=None, size_ratio=None, exact_match=None, **SCORELESS)])
    assert advised.sentence == "ship onnx-int8: 0.100 s per image (no baseline was measured), quality not measured"


def test_the_sentence_warns_if_no_times_are_stable():
    advised = advice(row("onnx-int8", 0.1, unstable="2 of 3 repeats"))
    assert advised.sentence.endswith("no clear loss, but with unstable times (2 of 3 repeats)")


def test_slower_than_the_baseline_is_called_slower():
    assert advice(row("onnx-int8", 0.6)).sentence.startswith("ship onnx-int8: 2.0x slower, ")


def test_nothing_to_ship():
    advised = advice(row("onnx-int8", 0.1, verdict="loss: cider"))
    assert (advised.chosen, advised.sentence) == (None, "ship none of these: no artifact passes the rule")
    assert advised.reasons == (("hf-fp32", "the baseline"), ("onnx-int8", "loss: cider"))


def test_only_rows_with_the_first_rows_tokens_are_candidates():
    rows = [row("onnx-int8", 0.2, setting="b1 natural"), row("onnx-int8", 0.15, setting="b8 natural"),
            row("onnx-int8", 0.05, setting="b8 5tok", forced_tokens=5)]  # fmt: skip
    advised = recommend(rows)
    assert advised.sentence.startswith("ship onnx-int8 b8 natural: ")
    assert [case for case, _ in advised.reasons] == ["onnx-int8 b1 natural", "onnx-int8 b8 natural"]
