"""Rows of answerers and matchers, from records whose figures are known by hand."""

from dataclasses import replace

import pytest

from tests.toolkit.stats.run_records import WORKLOAD, record
from toolkit.records.image_quality import ImageQuality, Retrieval
from toolkit.records.record import BASELINE
from toolkit.stats.rows import make_rows
from toolkit.tables.render import render_markdown


def rows_of(task, baseline, case, **subject):
    """Return the row of a case, and the Markdown tables of both."""
    work = replace(WORKLOAD, images=len(case), task=task, texts=2 if task == "matching" else None, metric_counter=None)
    records = [
        replace(record(name, repeat, [1.0] * len(case), quality if repeat == 0 else ()), workload=work)
        for repeat in range(2)
        for name, quality in ((BASELINE, baseline), ("case", case))
    ]
    records = [replace(each, subject=replace(each.subject, **subject)) if each.case == "case" else each for each in records]
    return {row["case"]: row for row in make_rows(records)}, render_markdown(records)


def answer(text, accuracy, log_probability, image=0):
    return ImageQuality(
        file=f"{image}.jpg",
        caption=text,
        tokens=2,
        question="what is it?",
        vqa_accuracy=accuracy,
        log_probability=log_probability,
        scored_tokens=10,
        kl_divergence=0.5,
    )


def test_answers_have_accuracy_drift_and_equal_answers():
    baseline = [answer("yes", 1.0, -10.0, image=index // 2) for index in range(4)]
    case = [answer("yes", 1.0, -10.0), answer("no", 0.0, -14.0), answer("yes", 1.0, -10.0, 1), answer("yes", 1.0, -12.0, 1)]
    rows, text = rows_of("vqa", baseline, case, drift_limit_nat=0.02)
    row = rows["case"]
    assert (rows[BASELINE]["vqa_accuracy"], row["vqa_accuracy"], row["vqa_accuracy_change"]) == (1.0, 0.75, -0.25)
    assert row["exact_match"] == 0.75
    assert row["drift"] == pytest.approx(6 / 40)
    assert row["kl"] == pytest.approx(0.05)
    assert row["verdict_text"] == "no verdict (2 of 20 images)", "the two questions of an image are one unit"
    assert (row["bleu4"], row["image_recall_1"]) == (None, None)
    for title in ("s/question", "questions/s", "VQA accuracy, change %", "same answers", "Workload: 4 questions of", "VQAv2"):
        assert title in text
    assert "BLEU" not in text
    assert "caption" not in text


def test_the_drift_of_questions_is_resampled_by_image():
    """Two questions of each image lose equally much, so an interval over questions would be too narrow."""
    losses = [0.0, 4.0] * 10
    baseline = [answer("yes", 1.0, -10.0, image) for image in range(20) for _ in range(2)]
    case = [answer("yes", 1.0, -10.0 - losses[image], image) for image in range(20) for _ in range(2)]
    apart = [[replace(each, file=f"{index}.jpg") for index, each in enumerate(quality)] for quality in (baseline, case)]
    by_image, by_question = (rows_of("vqa", *each)[0]["case"] for each in ((baseline, case), apart))
    assert by_image["drift"] == by_question["drift"] == pytest.approx(0.2)
    widths = [row["drift_high"] - row["drift_low"] for row in (by_image, by_question)]
    assert widths[0] / widths[1] == pytest.approx(2**0.5, rel=0.1)


def match(text, text_rank, image_ranks, best, similarities, probabilities):
    retrieval = Retrieval(
        text_rank=text_rank,
        image_ranks=tuple(image_ranks),
        best_images=tuple(map(tuple, best)),
        similarities=tuple(similarities),
        probabilities=tuple(probabilities),
    )
    return ImageQuality(file="one.jpg", caption=text, tokens=0, retrieval=retrieval)


def test_matchers_have_recall_changes_of_scores_and_agreement_of_ranks():
    baseline = [
        match("a", 0, [0, 0], [[0, 1], [0, 1]], [0.5, 0.1], [0.9, 0.1]),
        match("b", 0, [1, 0], [[0, 1], [1, 0]], [0.5, 0.1], [0.9, 0.1]),
    ]
    case = [
        match("a", 3, [0, 1], [[0, 1], [1, 0]], [0.4, 0.1], [0.9, 0.3]),
        match("c", 6, [6, 0], [[0, 1], [1, 0]], [0.5, 0.3], [0.7, 0.1]),
    ]
    rows, text = rows_of("matching", baseline, case, precision="int8", approximate=False)
    row = rows["case"]
    assert [rows[BASELINE][f"image_recall_{k}"] for k in (1, 5)] == [0.75, 1.0]
    assert [row[f"image_recall_{k}"] for k in (1, 5)] == [0.5, 0.75]
    assert [row[f"text_recall_{k}"] for k in (1, 5)] == [0.0, 0.5]
    assert row["image_recall_1_change"] == pytest.approx(0.5 / 0.75 - 1)
    assert row["similarity_change"] == pytest.approx((0.1 + 0.0 + 0.0 + 0.2) / 4)
    assert row["probability_change"] == pytest.approx((0.0 + 0.2 + 0.2 + 0.0) / 4)
    assert (row["agreement_1"], row["agreement_5"], row["exact_match"]) == (0.75, 1.0, 0.5)
    assert (row["score_limit"], row["verdict_text"], row["drift"]) == (0.02, "no verdict (2 of 20 images)", None)
    assert rows[BASELINE]["verdict_text"] is None
    for title in ("change of probability", "image R@1, change %", "text R@5", "FP32's best image first", "compared with 2 texts"):
        assert title in text
    assert "drift" not in text.lower()
