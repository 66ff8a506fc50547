"""Every output takes the words of a verdict from one module, and none of them keeps words of its own."""

import re
from dataclasses import replace

import pytest

from exporters.gate.findings import card_text
from exporters.gate.gate import findings_line
from exporters.gate.verdict import CANNOT_TELL, LOSS, NO_LOSS
from tests.paths import ROOT
from tests.toolkit.stats.run_records import WORKLOAD, quality, record
from toolkit.compare.pairing import AllowedDifferences, BenchRun, pair_up
from toolkit.compare.render import line_of
from toolkit.compare.render import render_markdown as render_comparison
from toolkit.records.record import BASELINE
from toolkit.report.page import render_html
from toolkit.stats.rows import make_rows
from toolkit.tables.render import render_markdown

IMAGES = 24
LOSSES = {NO_LOSS: [0.1] * IMAGES, LOSS: [0.5] * IMAGES, CANNOT_TELL: [1.0, -1.0] * (IMAGES // 2)}
"""Verdict → nat that each image loses over 10 tokens; the limit of the recipe is 0.02 nat/token."""


def records(losses):
    images = {BASELINE: [quality()] * IMAGES, "case": [quality(log_probability=-10.0 - loss, cider=1.2) for loss in losses]}
    work = replace(WORKLOAD, images=IMAGES)
    made = [replace(record(case, repeat, [1.0] * IMAGES, each), workload=work) for repeat in range(2) for case, each in images.items()]
    return [
        replace(each, subject=replace(each.subject, drift_limit_nat=0.02, approximate=False)) if each.case == "case" else each
        for each in made
    ]


@pytest.mark.parametrize("verdict", LOSSES)
def test_tables_page_comparison_card_and_gate_have_the_same_words(verdict):
    run = BenchRun(name="run.jsonl", records=records(LOSSES[verdict]))
    row = next(row for row in make_rows(run.records) if row["case"] == "case")
    text = row["verdict_text"]
    assert (row["verdict"], text.split(" (")[0]) == (verdict, verdict)
    assert f" {text} " in render_markdown(run.records)
    assert f"<td>{text}</td>" in render_html(run.records)
    lines = [line_of(paired, (), strict=False) for paired in pair_up(run, run, (), AllowedDifferences())]
    assert f"Quality against FP32: A: {text}; B: {text}." in render_comparison(run, run, lines)
    findings = {
        "passed": verdict == NO_LOSS,
        "problem": None,
        "images": IMAGES,
        "exact_captions": 20,
        "ties": 0,
        "drift_nat_per_token": row["drift"],
        "drift_low": row["drift_low"],
        "drift_high": row["drift_high"],
        "verdict": text,
        "reference": "transformers",
    }
    assert all(words.endswith(f" nat/token, {text}") for words in (findings_line(findings), card_text("caption", findings)))


def test_older_manifests_have_a_drift_without_a_verdict():
    older = {"passed": True, "problem": None, "images": 21, "exact_captions": 20, "ties": 0, "drift_nat_per_token": 0.001, "reference": "t"}
    assert card_text("caption", older) == "passed; 20 of 21 captions equal t, drift +0.0010 nat/token"


def test_no_other_module_has_the_words():
    quoted = re.compile(rf"[\"'](?:{NO_LOSS}|{CANNOT_TELL}|no clear \w+|clear loss)")
    sources = [file for folder in ("toolkit", "exporters", "runtimes") for file in (ROOT / folder).rglob("*.py")]
    having = [file.relative_to(ROOT).as_posix() for file in sources if quoted.search(file.read_text(encoding="utf-8"))]
    assert having == ["exporters/gate/verdict.py"]
