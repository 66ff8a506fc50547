"""Recommendation: rows with made-up figures, and the expected choice, sentence and reasons."""

import pytest

from toolkit.report.recommendation import RULE, RULE_WITHOUT_QUALITY, recommend
from toolkit.stats.rows import KEYS

NO_LOSS = {"verdict": "no loss", "verdict_text": "no loss"}
LOSS = {"verdict": "loss", "verdict_text": "loss"}
UNDECIDED = {"verdict": "cannot tell", "verdict_text": "cannot tell (about 230 images would)"}
FEW = {"verdict": None, "verdict_text": "no verdict (3 of 20 images)"}


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
        "drift": 0.001,
        "drift_low": -0.001,
        "drift_high": 0.003,
        "exact_match": 0.8,
        **NO_LOSS,
        "approximate": False,
        "drift_limit": 0.02,
    }
    return dict.fromkeys(KEYS) | given | figures


NONE = {"verdict": None, "verdict_text": None}
BASE = row("hf-fp32", 0.3, 100, **NONE, drift=0.0, exact_match=1.0)
SCORELESS = NONE | {"drift": None}


def advice(*rows):
    return recommend([BASE, *rows])


def reason(recommendation, case):
    return dict(recommendation.reasons)[case]


def test_the_fastest_artifact_without_loss_is_chosen():
    advised = advice(row("onnx-fp32", 0.2, 100), row("onnx-int8", 0.1, 26))
    assert advised.chosen["case"] == "onnx-int8"
    assert advised.sentence == "ship onnx-int8: 3.0x faster, -74 % size, quality: no loss, drift +0.0010 [-0.0010, +0.0030] nat/token"
    assert advised.rule == RULE
    assert advised.reasons == (
        ("hf-fp32", "the baseline"),
        ("onnx-fp32", "slower: 2.00x the time of onnx-int8"),
        ("onnx-int8", "chosen: the fastest"),
    )


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
        (LOSS, "loss"),
        (UNDECIDED, "cannot tell (about 230 images would)"),
        ({"unstable": "repeats 12% apart"}, "unstable: repeats 12% apart"),
        ({"error": "out of memory"}, "failed: out of memory"),
        (NONE, "its quality was not measured"),
    ],
)
def test_a_fast_artifact_can_be_excluded(figures, why):
    advised = advice(row("onnx-fp32", 0.2, 100), row("onnx-int8", 0.1, **figures))
    assert advised.chosen["case"] == "onnx-fp32"
    assert reason(advised, "onnx-int8") == why


@pytest.mark.parametrize("undecided", [UNDECIDED, FEW], ids=["cannot tell", "few images"])
def test_without_a_verdict_of_no_loss_the_undecided_are_candidates(undecided):
    """The sentence has the verdict beside the drift, and no word of a loss that there is none."""
    advised = advice(row("onnx-fp32", 0.2, 100, **undecided), row("onnx-int8", 0.1, **undecided), row("onnx-int4", 0.05, **LOSS))
    assert advised.chosen["case"] == "onnx-int8"
    assert advised.sentence.endswith(f", quality: {undecided['verdict_text']}, drift +0.0010 [-0.0010, +0.0030] nat/token")
    assert "no loss" not in advised.sentence
    assert reason(advised, "onnx-int4") == "loss"


def test_a_drift_without_an_interval():
    single = row("onnx-int8", 0.1, **FEW, drift_low=None, drift_high=None)
    assert advice(single).sentence.endswith(", drift +0.0010 nat/token")


def test_an_approximate_artifact_is_recognized_by_its_record_not_by_its_name():
    advised = advice(row("onnx-int8", 0.2), row("mine", 0.1, approximate=True))
    assert advised.chosen["case"] == "onnx-int8"
    assert reason(advised, "mine") == "approximate: select it by name if you want it"


def test_records_without_quality_have_another_rule():
    advised = recommend([BASE | SCORELESS, row("onnx-int8", 0.1, exact_match=0.25, **SCORELESS)])
    assert advised.rule == RULE_WITHOUT_QUALITY
    assert advised.sentence == "ship onnx-int8: 3.0x faster, -70 % size, 25% of captions unchanged, quality not measured"


def test_without_a_baseline_the_sentence_has_the_time():
    advised = recommend([row("onnx-int8", 0.1, speedup=None, size_ratio=None, exact_match=None, **SCORELESS)])
    assert advised.sentence == "ship onnx-int8: 0.100 s per image (no baseline was measured), quality not measured"


def test_the_sentence_warns_if_no_times_are_stable():
    advised = advice(row("onnx-int8", 0.1, unstable="2 of 3 repeats"))
    assert advised.sentence.endswith(" nat/token, but with unstable times (2 of 3 repeats)")


def test_slower_than_the_baseline_is_called_slower():
    assert advice(row("onnx-int8", 0.6)).sentence.startswith("ship onnx-int8: 2.0x slower, ")


def test_nothing_to_ship():
    advised = advice(row("onnx-int8", 0.1, **LOSS))
    assert (advised.chosen, advised.sentence) == (None, "ship none of these: no artifact passes the rule")
    assert advised.reasons == (("hf-fp32", "the baseline"), ("onnx-int8", "loss"))


def test_only_rows_with_the_first_rows_tokens_are_candidates():
    rows = [row("onnx-int8", 0.2, setting="b1 natural"), row("onnx-int8", 0.15, setting="b8 natural"),
            row("onnx-int8", 0.05, setting="b8 5tok", forced_tokens=5)]  # fmt: skip
    advised = recommend(rows)
    assert advised.sentence.startswith("ship onnx-int8 b8 natural: ")
    assert [case for case, _ in advised.reasons] == ["onnx-int8 b1 natural", "onnx-int8 b8 natural"]
