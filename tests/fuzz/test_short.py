"""A small sample of the fuzzing in every test run; `make fuzz` runs thousands of cases."""

import pytest

from tests.fuzz import archives, damage, documents, forge, images
from tests.fuzz.__main__ import forge_drafts, forge_goldens
from tests.fuzz.tally import Tally
from tests.paths import ROOT


@pytest.mark.slow
def test_images():
    assert images.run(1500, seed=7).broken == []


def test_damaged_artifacts(tiny_artifacts, tmp_path):
    seeds = [tiny_artifacts[recipe] for recipe in ("onnx-int8", "pytorch-int8")]
    assert damage.run(seeds, 150, seed=7, folder=tmp_path).broken == []


@pytest.mark.full
def test_flipped_bits_of_a_manifest(tiny_artifacts, tmp_path):
    """Flips a sample of the bits. test_manifest_damage.py flips every bit of a small manifest, and `make fuzz` every bit of this one."""
    size = (tiny_artifacts["onnx-int8"] / "manifest.json").stat().st_size
    assert damage.every_bit(tiny_artifacts["onnx-int8"], tmp_path, range(0, 8 * size, 160)).broken == []


def test_hostile_archives(tiny_artifacts, tmp_path):
    tally = archives.hostile(tiny_artifacts["onnx-int8"], tmp_path, bomb_bytes=8 << 20)
    assert tally.broken == []
    assert tally.tried >= 60


def test_damaged_archives(tiny_artifacts, tmp_path):
    assert archives.damage(tiny_artifacts["onnx-int8"], 100, seed=7, folder=tmp_path).broken == []


@pytest.mark.slow
def test_records(tmp_path):
    assert documents.records([ROOT / "tests" / "golden" / "records.jsonl"], 150, seed=7, folder=tmp_path).broken == []


def test_peers(tiny_artifacts, tmp_path):
    tally = documents.peers(tiny_artifacts["onnx-fp32"], 300, seed=7, folder=tmp_path)
    assert tally.broken == []
    assert set(tally.outcomes) == {"ARTIFACT_CORRUPT", "read"}


def test_forged_artifacts(tiny_artifacts, drawn_images, tmp_path):
    tally, crashes = forge.run([tiny_artifacts["onnx-int8"]], 25, seed=7, folder=tmp_path, image=drawn_images[0].path)
    assert tally.broken == []
    assert crashes == []


@pytest.mark.full
def test_forged_golden_captions(tiny_artifacts, drawn_images, tmp_path):
    (tmp_path / "goldens").mkdir()
    tally, crashes = forge_goldens(tiny_artifacts["onnx-int8"], 25, 7, tmp_path / "goldens", drawn_images[0].path)
    assert tally.broken == []
    assert crashes == []
    assert {"ARTIFACT_CORRUPT", "golden captions differ"} <= set(tally.outcomes)


def test_the_fuzzing_can_fail(tiny_artifacts):
    """An undamaged artifact loads, which counts as a broken promise."""
    tally = Tally("x", "x")
    damage.attempt(tally, tiny_artifacts["onnx-int8"], "nothing was done", seed=tiny_artifacts["onnx-int8"])
    assert tally.broken == ["nothing was done: loaded"]


@pytest.mark.full
def test_forged_draft_tables(tiny_artifacts, drawn_images, tmp_path):
    (tmp_path / "drafts").mkdir()
    tally, crashes = forge_drafts(tiny_artifacts["onnx-int8"], 25, 7, tmp_path / "drafts", drawn_images[0].path)
    assert tally.broken == []
    assert crashes == []
