"""BLEU compared with NLTK, with stored values of pycocoevalcap, and with values computed by hand; backends compared with each other."""

import json
import logging
import math
import os
import random
import re
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from nltk.translate.bleu_score import corpus_bleu

from runtimes.errors import UnavailableError
from tests.paths import ROOT
from toolkit.metrics import ngrams
from toolkit.metrics.bleu import NgramCounts, bleu
from toolkit.metrics.hf_evaluate import counts_of_precisions, load_counter
from toolkit.metrics.ngrams import COUNTERS, nltk_counter, own_counter, pick_counter

ORACLE = json.loads(Path(__file__).with_name("pycocoevalcap.json").read_text(encoding="utf-8"))
COCO = [(image["hypothesis"].split(), [reference.split() for reference in image["references"]]) for image in ORACLE["images"]]


def made_up(seed):
    """Return 1..12 images from a small vocabulary: with equal lengths, repeated n-grams, and captions that are short or empty."""
    rng = random.Random(seed)
    vocabulary = ["a", "the", "dog", "cat", "on", "in", "red"]
    images = []
    for _ in range(rng.randint(1, 12)):
        references = [rng.choices(vocabulary, k=rng.randint(1, 9)) for _ in range(rng.randint(1, 5))]
        copied = rng.choice(references)[: rng.randint(0, 9)]
        images.append((copied + rng.choices(vocabulary, k=rng.randint(0, 3)), references))
    return images


SETS = [COCO, *(made_up(seed) for seed in range(40))]


def score(images, count=None):
    count = count or own_counter()
    return bleu([count(hypothesis, references) for hypothesis, references in images])


def nltk_bleu(images):
    """Return NLTK's corpus BLEU-1..4 without smoothing; it replaces a precision of 0 by the smallest positive float."""
    hypotheses, references = [hypothesis for hypothesis, _ in images], [of_image for _, of_image in images]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about precisions of 0
        scores = [corpus_bleu(references, hypotheses, weights=[1 / n] * n) for n in range(1, 5)]
    return [0 if score < 1e-70 else score for score in scores]


@pytest.mark.parametrize("images", SETS)
def test_equals_nltk(images):
    enough = [image for image in images if len(image[0]) >= 4]
    assert score(enough) == pytest.approx(nltk_bleu(enough) if enough else [0] * 4, abs=1e-9)


@pytest.mark.parametrize("images", SETS)
def test_differs_from_nltk_in_captions_of_fewer_than_four_words_only(images):
    # NLTK counts one n-gram in a caption that is too short for any; COCO and HF evaluate count none
    counts = [own_counter()(hypothesis, references) for hypothesis, references in images]
    as_nltk = [replace(image, totals=tuple(max(1, total) for total in image.totals)) for image in counts]
    assert bleu(as_nltk) == pytest.approx(nltk_bleu(images), abs=1e-9)
    shortest = min(image.hypothesis_length for image in counts)
    assert bleu(counts)[:shortest] == pytest.approx(nltk_bleu(images)[:shortest], abs=1e-9)


def test_the_sets_are_varied():
    counts = [own_counter()(hypothesis, references) for images in SETS for hypothesis, references in images]
    assert sum(image.hypothesis_length < 4 for image in counts) >= 20
    assert sum(image.hypothesis_length == 0 for image in counts) >= 1
    ties = [
        references
        for images in SETS
        for hypothesis, references in images
        if {len(hypothesis) - 1, len(hypothesis) + 1} <= {len(reference) for reference in references}
        and len(hypothesis) not in {len(reference) for reference in references}
    ]
    assert len(ties) >= 3
    assert sum(score(images)[3] > 0 for images in SETS) >= 20
    assert sum(score(images)[3] == 0 for images in SETS) >= 1
    assert sum(sum(len(hypothesis) >= 4 for hypothesis, _ in images) >= 3 for images in SETS) >= 20


def test_equals_coco():
    assert score(COCO) == pytest.approx(ORACLE["bleu"], abs=1e-9)


@pytest.mark.parametrize("images", SETS)
def test_backends_count_the_same(images):
    own, nltk = own_counter(), nltk_counter()
    for hypothesis, references in images:
        assert nltk(hypothesis, references) == own(hypothesis, references)


def test_counts_by_hand():
    # "the" is clipped to 2, its maximum in one reference (Papineni et al. 2002, section 2.1)
    references = [["the", "cat", "is", "on", "the", "mat"], ["there", "is", "a", "cat", "on", "the", "mat"]]
    assert own_counter()(["the", "the", "the", "the", "the", "the", "the"], references) == NgramCounts(
        matches=(2, 0, 0, 0), totals=(7, 6, 5, 4), hypothesis_length=7, reference_length=7
    )


def test_of_two_equally_close_references_the_shorter_counts():
    assert own_counter()(["a"] * 4, [["a"] * 6, ["a"] * 5, ["a"] * 3]).reference_length == 3


def test_score_by_hand():
    # precisions 5/6, 3/5, 1/4, 0/3; no brevity penalty
    counts = NgramCounts(matches=(5, 3, 1, 0), totals=(6, 5, 4, 3), hypothesis_length=6, reference_length=6)
    assert bleu([counts]) == pytest.approx((5 / 6, math.sqrt(0.5), 0.125 ** (1 / 3), 0), abs=1e-12)


def test_brevity_penalty_by_hand():
    short = NgramCounts(matches=(4, 3, 2, 1), totals=(4, 3, 2, 1), hypothesis_length=4, reference_length=6)
    long = NgramCounts(matches=(4, 3, 2, 1), totals=(4, 3, 2, 1), hypothesis_length=6, reference_length=4)
    assert bleu([short]) == pytest.approx([math.exp(1 - 6 / 4)] * 4, abs=1e-12)
    assert bleu([long]) == (1, 1, 1, 1)
    assert bleu([short, long]) == (1, 1, 1, 1)  # lengths are summed before they are compared


def test_an_empty_set_and_an_empty_caption_score_zero():
    assert bleu([]) == (0, 0, 0, 0)
    assert score([([], [["a", "dog"]])]) == (0, 0, 0, 0)


def test_evaluate_is_tried_first_and_nltk_counts_without_a_network(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    before = dict(os.environ), "evaluate" in sys.modules
    with caplog.at_level(logging.INFO, logger="toolkit"):
        counter = pick_counter()
    assert counter.name == "nltk"
    assert score(COCO, counter.count) == pytest.approx(ORACLE["bleu"], abs=1e-9)
    skipped, chosen = (record.getMessage() for record in caplog.records)
    assert skipped.startswith("BLEU: cannot count n-grams with evaluate (HF evaluate: offline, and no script in ")
    assert chosen == "BLEU: n-grams are counted with nltk"
    assert (dict(os.environ), "evaluate" in sys.modules) == before


def test_the_own_backend_counts_if_no_library_is_installed(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "nltk.translate.bleu_score", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with caplog.at_level(logging.INFO, logger="toolkit"):
        assert pick_counter().name == "own"
    assert [record.levelname for record in caplog.records] == ["INFO"] * 3
    assert "pip install 'blip-toolkit[eval]'" in caplog.text


def test_a_backend_with_wrong_counts_is_skipped(monkeypatch, caplog):
    wrong = NgramCounts(matches=(0, 0, 0, 0), totals=(5, 4, 3, 2), hypothesis_length=5, reference_length=4)
    monkeypatch.setitem(COUNTERS, "wrong", "toolkit.metrics.ngrams:wrong_counter")
    monkeypatch.setattr(ngrams, "wrong_counter", lambda: lambda hypothesis, references: wrong, raising=False)
    assert pick_counter(["wrong", "own"]).name == "own"
    assert "cannot count n-grams with wrong (wrong counts" in caplog.text
    with pytest.raises(LookupError, match="wrong"):
        pick_counter(["wrong"])


def test_evaluate_has_a_time_limit():
    with pytest.raises(UnavailableError, match="no answer within 0 s"):
        load_counter(limit_s=0)


RECORDING = """
class _Metric:
    def compute(self, predictions, references, tokenizer):
        raise ValueError("loaded with " + repr(self.options))


def load(path, **options):
    metric = _Metric()
    metric.options = {"path": path, **options}
    return metric
"""
"""A stand-in for the package `evaluate`, whose metric raises an error with the arguments of `load`."""


def test_the_script_of_evaluate_is_pinned_to_a_commit(tmp_path, monkeypatch):
    """The newest script on the hub is unreviewed code."""
    (tmp_path / "evaluate.py").write_text(RECORDING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.delenv("HF_EVALUATE_OFFLINE")
    count = load_counter(limit_s=60)
    with pytest.raises(UnavailableError, match="'path': 'bleu'") as caught:
        count(["a"], [["a"]])
    assert re.search(r"'revision': '[0-9a-f]{40}'", str(caught.value))


SCRIPT = '''
"""Clipped 1..4-gram precisions, with the interface of the "bleu" script of HF evaluate."""
import datasets
import evaluate
from toolkit.metrics.ngrams import own_counter


class Bleu(evaluate.Metric):
    def _info(self):
        text = datasets.Value("string")
        features = datasets.Features({"predictions": text, "references": datasets.Sequence(text)})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

    def _compute(self, predictions, references, tokenizer):
        print("noise on stdout")
        counts = own_counter()(tokenizer(predictions[0]), [tokenizer(reference) for reference in references[0]])
        precisions = [matches / max(1, total) for matches, total in zip(counts.matches, counts.totals)]
        return {"precisions": precisions, "translation_length": counts.hypothesis_length, "reference_length": -1}
'''

ASK = """
import json, sys
from toolkit.metrics.hf_evaluate import load_counter
from toolkit.metrics.ngrams import own_counter
evaluate, own = load_counter(sys.argv[1], limit_s=120), own_counter()
for hypothesis, references in json.loads(sys.stdin.read()):
    assert evaluate(hypothesis, references) == own(hypothesis, references), hypothesis
assert "evaluate" not in sys.modules
print("same")
"""


@pytest.mark.full
def test_evaluate_has_the_same_counts(tmp_path):
    script = tmp_path / "bleu" / "bleu.py"
    script.parent.mkdir()
    script.write_text(SCRIPT)
    root = ROOT
    environment = os.environ | {"HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", ASK, str(script.parent)]
    done = subprocess.run(command, input=json.dumps(COCO), capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.stdout == "same\n", done.stderr


def test_precisions_that_do_not_match_counts_are_an_error():
    words = ["a", "dog", "on", "a", "bed"]
    assert counts_of_precisions([4 / 5, 1 / 4, 1 / 3, 0.0], 5, words, [words]).matches == (4, 1, 1, 0)
    with pytest.raises(ValueError, match="5"):
        counts_of_precisions([5 / 6, 2 / 5, 2 / 4, 1 / 3], 5, words, [words])  # smoothed
    with pytest.raises(ValueError, match="5"):
        counts_of_precisions([1.0, 1.0, 1.0, 1.0], 6, words, [words])  # tokenized differently
