"""Verdicts and divergence in rows of a report."""

from dataclasses import replace

import pytest

from tests.toolkit.stats.run_records import WORKLOAD, quality, record, rows_of
from toolkit.records.record import BASELINE

MANY = 24
WORSE = {"matches": (8, 6, 5, 4), "cider": 0.5, "rouge_l": 0.2}
"""Scores with clear losses, and no drift."""


def of_many_images(losses, limit=None, **captions):
    """Return the row of a case whose images lose `losses` nat over 10 tokens each, beside a baseline."""
    base = [quality()] * MANY
    scored = [quality(log_probability=-10.0 - loss, **captions) for loss in losses]
    work = replace(WORKLOAD, images=MANY)
    records = [replace(record(case, 0, [1.0] * MANY, each), workload=work) for case, each in ((BASELINE, base), ("case", scored))]
    records[1] = replace(records[1], subject=replace(records[1].subject, drift_limit_nat=limit))
    rows = rows_of(*records)
    assert (rows[BASELINE]["verdict"], rows[BASELINE]["verdict_text"]) == (None, None)
    return rows["case"]


@pytest.mark.parametrize(
    ("losses", "limit", "text"),
    [
        ([0.0] * MANY, None, "no loss"),
        ([-0.5] * MANY, None, "no loss"),
        ([0.1] * MANY, 0.02, "no loss"),  # a drift of 0.01
        ([0.1] * MANY, 0.009, "loss"),
        ([0.1] * MANY, None, "loss"),
        ([1.0, -1.0] * (MANY // 2), 0.02, "cannot tell (about 280 images would)"),
    ],
)
@pytest.mark.parametrize("captions", [{}, WORSE], ids=["same scores", "worse scores"])
def test_drift_and_the_recipes_limit_decide(losses, limit, text, captions):
    row = of_many_images(losses, limit, **captions)
    assert (row["verdict_text"], row["drift"], row["drift_limit"]) == (text, pytest.approx(sum(losses) / MANY / 10), limit)
    assert row["verdict"] == text.split(" (")[0]
    assert row["images_needed"] == (280 if "280" in text else None)
    assert (row["cider_change_high"] < 0) == bool(captions)


def test_without_log_probabilities_there_is_no_verdict():
    captions = [quality(cider=0.5, log_probability=None)] * 3
    row = rows_of(record(BASELINE, 0, [1.0] * 3, [quality()] * 3), record("whole", 0, [1.0] * 3, captions))["whole"]
    assert [row[key] for key in ("drift", "drift_low", "verdict", "verdict_text", "kl")] == [None] * 5
    assert row["exact_match"] == 1.0


def test_the_divergence_is_a_mean_over_tokens():
    base = [quality()] * 3
    case = [replace(quality(), kl_divergence=each) for each in (0.1, 0.2, 0.6)]
    rows = rows_of(record(BASELINE, 0, [1.0] * 3, base), record("case", 0, [1.0] * 3, case), record("old", 0, [1.0] * 3, base))
    assert rows["case"]["kl"] == pytest.approx(0.03)
    assert rows["case"]["kl_low"] < 0.03 < rows["case"]["kl_high"]
    assert [rows["old"][key] for key in ("kl", "kl_low", "kl_high")] == [None] * 3, "records of older versions have none"
