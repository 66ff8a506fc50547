"""Packages: an artifact goes in, an archive comes out that holds all of it, captions as it does, and is the same twice."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import runtimes
from runtimes import document
from runtimes.archive import unpack
from runtimes.artifact import open_artifact, sha256_of
from runtimes.errors import ArchiveError, ArtifactCorruptError, GoldenError, OutputExistsError
from toolkit.packaging.package import package

CAT = Path(__file__).parents[2] / "toolkit" / "sample" / "cat.jpg"
ROOT_FILES = ["README.md", "golden-cat.jpg", "golden-cat.png", "golden-coffee.jpg", "golden-coffee.png", "golden-logits.f32"]
ROOT_FILES += ["golden-parrot.jpg", "golden-parrot.png", "golden.json", "manifest.json"]


@pytest.fixture(scope="module")
def packed(tiny_artifacts, tmp_path_factory):
    """(archive, folder that it was unpacked into, digest)."""
    folder = tmp_path_factory.mktemp("packed")
    digest = package(tiny_artifacts["onnx-int8"], folder / "a.tar.gz")
    unpack(folder / "a.tar.gz", folder / "a", digest)
    return folder / "a.tar.gz", folder / "a", digest


def test_it_holds_the_artifact_and_what_proves_it(packed, tiny_artifacts):
    _, folder, digest = packed
    artifact = tiny_artifacts["onnx-int8"]
    assert open_artifact(folder).manifest.digest == digest
    kept = {name: (artifact / name).read_bytes() for name in open_artifact(artifact).manifest.files}
    assert {name: (folder / name).read_bytes() for name in kept} == kept
    assert sorted({file.name for file in folder.iterdir()} - set(kept)) == ROOT_FILES


def test_golden_ids_are_those_of_the_captioner_from_both_forms_of_a_picture(packed):
    _, folder, _ = packed
    captioner, golden = runtimes.load(folder, "cpu"), json.loads((folder / "golden.json").read_bytes())
    assert [picture["original"] for picture in golden["pictures"]] == ["golden-cat.jpg", "golden-coffee.jpg", "golden-parrot.jpg"]
    for picture in golden["pictures"]:
        assert [caption["beams"] for caption in picture["captions"]] == [1, 3]
        for form in (picture["original"], picture["resized"]):
            for caption in picture["captions"]:
                (found,) = captioner.caption([folder / form], beams=caption["beams"])
                assert (list(found.token_ids), found.text) == (caption["token_ids"], caption["text"])
                assert found.score == pytest.approx(caption["score"], abs=1e-6)


def test_a_program_that_only_normalizes_gets_the_recorded_logits_and_margins(packed):
    """What a browser does: the PNG's bytes, mean and deviation of the manifest, one run of each graph per token."""
    _, folder, _ = packed
    captioner, golden = runtimes.load(folder, "cpu"), json.loads((folder / "golden.json").read_bytes())
    spec = captioner.manifest.image
    logits = np.frombuffer((folder / "golden-logits.f32").read_bytes(), "<f4").reshape(3, -1)
    for picture, expected in zip(golden["pictures"], logits, strict=True):
        rgb = np.asarray(Image.open(folder / picture["resized"]), np.float64)
        assert rgb.shape == (spec.height_px, spec.width_px, 3)
        pixels = ((rgb * spec.rescale - spec.mean) / spec.std).transpose(2, 0, 1)[None].astype(np.float32)
        greedy = picture["captions"][0]
        state, past, margins = captioner.session.encode(pixels), greedy["token_ids"], []
        for position, token in enumerate(past[:-1]):
            found, state = captioner.session.step(np.array([[token]]), state, np.array([0]))
            best, second = np.sort(found[0, 0])[::-1][:2]
            margins.append(best - second)
            assert past[position + 1] == found[0, 0].argmax()
            if position == 0:
                np.testing.assert_allclose(found[0, 0], expected, atol=1e-4)
        np.testing.assert_allclose(margins, greedy["margins_nat"], atol=1e-4)


@pytest.mark.parametrize("suffix", [".tar.gz", ".zip"])
def test_the_same_artifact_gives_the_same_bytes_even_after_a_journey(packed, tiny_artifacts, tmp_path, suffix):
    package(tiny_artifacts["onnx-int8"], tmp_path / f"a{suffix}")
    unpack(tmp_path / f"a{suffix}", tmp_path / "unpacked")
    assert package(tmp_path / "unpacked", tmp_path / f"b{suffix}") == packed[2]
    assert (tmp_path / f"b{suffix}").read_bytes() == (tmp_path / f"a{suffix}").read_bytes()


def test_the_card_says_what_it_is(packed, tiny_artifacts):
    card, manifest = (packed[1] / "README.md").read_text(), open_artifact(tiny_artifacts["onnx-int8"]).manifest
    for fact in (
        manifest.name,
        manifest.source.sha256,
        manifest.recipe["why"],
        f"onnxruntime {manifest.requires['onnxruntime']}",
        "32 px square, bicubic",
        "CC0-1.0",
    ):
        assert fact in card
    assert "Checkpoint: not stated" in card
    assert "## Measured" not in card
    assert "{" not in card


def test_what_cannot_be_packaged_is_refused_before_anything_is_written(tiny_artifacts, tmp_path):
    artifact = shutil.copytree(tiny_artifacts["onnx-int8"], tmp_path / "a")
    with pytest.raises(ArchiveError, match=r"ends in \.tar\.gz or \.zip"):
        package(artifact, tmp_path / "a.rar")
    (tmp_path / "there.zip").write_text("mine")
    with pytest.raises(OutputExistsError):
        package(artifact, tmp_path / "there.zip")
    (artifact / "notes.txt").write_text("mine")
    with pytest.raises(ArtifactCorruptError, match=r"'notes\.txt' is not declared"):
        package(artifact, tmp_path / "b.zip")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "there.zip"]
    assert (tmp_path / "there.zip").read_text() == "mine"


def test_an_artifact_that_says_something_else_than_at_export_is_not_packaged(tiny_artifacts, tmp_path):
    artifact = shutil.copytree(tiny_artifacts["onnx-fp32"], tmp_path / "a")
    (said,) = runtimes.load(artifact).caption([CAT])
    picture = sha256_of(CAT)
    for ids, passes in ((said.token_ids, True), ((*said.token_ids[:2], 5, *said.token_ids[3:]), False)):
        manifest = open_artifact(artifact).manifest
        sealed = replace(manifest, gate={**manifest.gate, "captions": {picture: list(ids)}}).sealed()
        (artifact / "manifest.json").write_bytes(sealed.to_bytes())
        if passes:
            package(artifact, tmp_path / "a.zip")
        else:
            with pytest.raises(GoldenError, match=r"cat\.jpg: .* as at export"):
                package(artifact, tmp_path / "b.zip")
    assert document.to_json(open_artifact(artifact).manifest)["gate"]["captions"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "a.zip"]
