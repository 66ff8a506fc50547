"""Which artifact to ship: rows with made-up figures, and the choice, sentence and reasons worked out by hand."""

import pytest

from toolkit.report.recommendation import RULE, RULE_WITHOUT_QUALITY, recommend
from toolkit.stats.rows import KEYS


def row(case, seconds, size_mb=30, **figures):
    """A row that was measured without noise and lost nothing."""
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


def reason(found, case):
    return dict(found.reasons)[case]


def test_the_fastest_without_loss_and_the_sentence_of_its_figures():
    found = advice(row("onnx-fp32", 0.2, 100), row("onnx-int8", 0.1, 26))
    assert found.chosen["case"] == "onnx-int8"
    assert found.sentence == "ship onnx-int8: 3.0x faster, -74 % size, BLEU-4 -0.6 % [-1.9, +0.8], no clear loss"
    assert found.rule == RULE
    assert found.reasons == (
        ("hf-fp32", "the baseline"),
        ("onnx-fp32", "slower: 2.00x the time of onnx-int8"),
        ("onnx-int8", "chosen: the fastest"),
    )


def test_a_change_that_has_no_interval_is_not_the_one_that_is_named():
    unknown = {"bleu4_change_low": None, "bleu4_change_high": None}
    cider = {"cider_change": -0.02, "cider_change_low": -0.15, "cider_change_high": 0.081}
    assert ", CIDEr-D -2.0 % [-15.0, +8.1], " in advice(row("onnx-int8", 0.1, **unknown, **cider)).sentence
    assert ", BLEU-4 -0.6 %, " in advice(row("onnx-int8", 0.1, **unknown)).sentence


def test_overlapping_repeats_are_a_tie_that_the_smaller_wins():
    quick = row("onnx-int8", 0.10, 30, seconds_per_image_low=0.09, seconds_per_image_high=0.11)
    small = row("onnx-int4", 0.12, 24, seconds_per_image_low=0.11, seconds_per_image_high=0.13)
    found = advice(quick, small)
    assert found.chosen["case"] == "onnx-int4"
    assert reason(found, "onnx-int4") == "chosen: as fast as onnx-int8 within noise, and smaller"
    assert reason(found, "onnx-int8") == "as fast within noise, not smaller (30 MB against 24)"
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
def test_what_is_fast_and_cannot_be_shipped(figures, why):
    found = advice(row("onnx-fp32", 0.2, 100), row("onnx-int8", 0.1, **figures))
    assert found.chosen["case"] == "onnx-fp32"
    assert reason(found, "onnx-int8") == why


def test_drift_within_the_recipes_limit_is_no_obstacle():
    found = advice(row("onnx-int8", 0.1, verdict="loss: drift", drift=0.01, drift_low=0.004, drift_high=0.0199))
    assert found.sentence.endswith(", drift +0.0100 [+0.0040, +0.0199] nat/token within the recipe's limit")
    unknown = advice(row("onnx-int8", 0.1, verdict="loss: drift", drift_high=0.0001, drift_limit=None))
    assert unknown.chosen is None


def test_an_approximate_artifact_is_known_by_its_record_whatever_the_case_is_called():
    found = advice(row("onnx-int8", 0.2), row("mine", 0.1, approximate=True))
    assert found.chosen["case"] == "onnx-int8"
    assert reason(found, "mine") == "approximate: only for those who ask for it by name"


def test_a_case_is_not_judged_by_a_shipped_recipe_of_its_name():
    """A recipe file of one's own may be called as a shipped one; what counts is what it allowed."""
    stricter = advice(row("onnx-int8", 0.1, verdict="loss: drift", drift_high=0.015, drift_limit=0.01))
    assert stricter.chosen is None
    exact = advice(row("onnx-int8-fast", 0.1))
    assert exact.chosen["case"] == "onnx-int8-fast"


def test_records_without_quality_say_so():
    found = recommend([BASE | SCORELESS, row("onnx-int8", 0.1, exact_match=0.25, **SCORELESS)])
    assert found.rule == RULE_WITHOUT_QUALITY
    assert found.sentence == "ship onnx-int8: 3.0x faster, -70 % size, 25% of captions the same, quality not measured"


def test_without_a_baseline_the_time_stands_for_itself():
    found = recommend([row("onnx-int8", 0.1, speedup=None, size_ratio=None, exact_match=None, **SCORELESS)])
    assert found.sentence == "ship onnx-int8: 0.100 s per image (no baseline was measured), quality not measured"


def test_where_nothing_is_stable_the_sentence_warns():
    found = advice(row("onnx-int8", 0.1, unstable="2 of 3 repeats"))
    assert found.sentence.endswith("no clear loss, but measured unstably (2 of 3 repeats)")


def test_slower_than_the_baseline_is_called_slower():
    assert advice(row("onnx-int8", 0.6)).sentence.startswith("ship onnx-int8: 2.0x slower, ")


def test_nothing_to_ship():
    found = advice(row("onnx-int8", 0.1, verdict="loss: cider"))
    assert (found.chosen, found.sentence) == (None, "ship none of these: none passes the rule")
    assert found.reasons == (("hf-fp32", "the baseline"), ("onnx-int8", "loss: cider"))


def test_of_a_sweep_the_rows_with_the_first_ones_tokens():
    rows = [row("onnx-int8", 0.2, setting="b1 natural"), row("onnx-int8", 0.15, setting="b8 natural"),
            row("onnx-int8", 0.05, setting="b8 5tok", forced_tokens=5)]  # fmt: skip
    found = recommend(rows)
    assert found.sentence.startswith("ship onnx-int8 b8 natural: ")
    assert [case for case, _ in found.reasons] == ["onnx-int8 b1 natural", "onnx-int8 b8 natural"]
