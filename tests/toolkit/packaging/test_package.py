"""Packages: the content of the archive, golden captions, the model card, and reproducible bytes."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import runtimes
from exporters.checkpoint.checkpoint import open_checkpoint
from runtimes.artifact import json_dataclass
from runtimes.artifact.folder import open_artifact, sha256_of
from runtimes.errors import ArtifactCorruptError, GoldenError, OutputExistsError, RecordError, RequestError
from runtimes.storage.archive import unpack
from runtimes.verification.verify import verify
from tests.paths import GOLDEN, ROOT
from toolkit.cli import main
from toolkit.packaging.card import measured_table
from toolkit.packaging.package import package
from toolkit.packaging.wheels import compatible
from toolkit.records.record_file import read_records, write_records
from toolkit.tables.render import render_markdown

CAT = ROOT / "toolkit" / "sample" / "cat.jpg"
GOLDEN_RECORDS = GOLDEN / "records.jsonl"
ROOT_FILES = ["README.md", "golden-cat.jpg", "golden-cat.png", "golden-coffee.jpg", "golden-coffee.png", "golden-logits.f32"]
ROOT_FILES += ["golden-parrot.jpg", "golden-parrot.png", "golden.json", "manifest.json"]


@pytest.fixture(scope="module")
def packed(tiny_artifacts, tmp_path_factory):
    """(archive, folder with its unpacked files, digest)."""
    folder = tmp_path_factory.mktemp("packed")
    digest = package(tiny_artifacts["onnx-int8"], folder / "a.tar.gz")
    unpack(folder / "a.tar.gz", folder / "a", digest)
    return folder / "a.tar.gz", folder / "a", digest


def test_a_package_contains_the_artifact_golden_files_and_a_card(packed, tiny_artifacts):
    _, folder, digest = packed
    artifact = tiny_artifacts["onnx-int8"]
    assert open_artifact(folder).manifest.digest == digest
    kept = {name: (artifact / name).read_bytes() for name in open_artifact(artifact).manifest.files}
    assert {name: (folder / name).read_bytes() for name in kept} == kept
    assert sorted({file.name for file in folder.iterdir()} - set(kept)) == ROOT_FILES


def test_golden_captions_equal_the_captioners_for_the_original_and_the_resized_image(packed):
    _, folder, _ = packed
    captioner, golden = runtimes.load(folder, device="cpu"), json.loads((folder / "golden.json").read_bytes())
    assert [image["original"] for image in golden["images"]] == ["golden-cat.jpg", "golden-coffee.jpg", "golden-parrot.jpg"]
    for image in golden["images"]:
        assert [caption["num_beams"] for caption in image["captions"]] == [1, 3]
        for form in (image["original"], image["resized"]):
            for caption in image["captions"]:
                (result,) = captioner.caption([folder / form], num_beams=caption["num_beams"])
                assert (list(result.token_ids), result.text) == (caption["token_ids"], caption["text"])
                assert result.score == pytest.approx(caption["score"], abs=1e-6)


def test_logits_and_margins_can_be_reproduced_with_the_manifest_alone(packed):
    """As a browser does: decode the PNG, normalize with the manifest's mean and std, run each graph once per token."""
    _, folder, _ = packed
    captioner, golden = runtimes.load(folder, device="cpu"), json.loads((folder / "golden.json").read_bytes())
    spec = captioner.manifest.image
    logits = np.frombuffer((folder / "golden-logits.f32").read_bytes(), "<f4").reshape(3, -1)
    for image, expected in zip(golden["images"], logits, strict=True):
        rgb = np.asarray(Image.open(folder / image["resized"]), np.float64)
        assert rgb.shape == (spec.height_px, spec.width_px, 3)
        pixels = ((rgb * spec.rescale - spec.mean) / spec.std).transpose(2, 0, 1)[None].astype(np.float32)
        greedy = image["captions"][0]
        state, past, margins = captioner.session.encode({"pixels": pixels}), greedy["token_ids"], []
        for position, token in enumerate(past[:-1]):
            step_logits, state = captioner.session.step(np.array([[token]]), state, np.array([0]))
            best, second = np.sort(step_logits[0, 0])[::-1][:2]
            margins.append(best - second)
            assert past[position + 1] == step_logits[0, 0].argmax()
            if position == 0:
                np.testing.assert_allclose(step_logits[0, 0], expected, atol=1e-4)
        np.testing.assert_allclose(margins, greedy["margins_nat"], atol=1e-4)


def test_an_unpacked_package_is_packaged_to_the_same_bytes(packed, tmp_path):
    assert package(packed[1], tmp_path / "b.tar.gz") == packed[2]
    assert (tmp_path / "b.tar.gz").read_bytes() == packed[0].read_bytes()


def test_packaging_does_not_touch_the_artifacts_files(tiny_artifacts, tmp_path):
    """Their ctime stays: a process that is loading the artifact refuses a file whose ctime changes meanwhile."""
    artifact = shutil.copytree(tiny_artifacts["onnx-int8"], tmp_path / "artifact")
    before = {path.name: path.stat().st_ctime_ns for path in artifact.iterdir()}
    package(artifact, tmp_path / "package.tar.gz")
    assert {path.name: path.stat().st_ctime_ns for path in artifact.iterdir()} == before


def test_the_card_describes_the_artifact(packed, tiny_artifacts):
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


def test_an_invalid_artifact_or_output_is_refused_and_nothing_is_written(tiny_artifacts, tmp_path):
    artifact = shutil.copytree(tiny_artifacts["onnx-int8"], tmp_path / "a")
    with pytest.raises(RequestError, match=r"a\.zip: .* ends in \.tar\.gz"):
        package(artifact, tmp_path / "a.zip")
    (tmp_path / "there.tar.gz").write_text("mine")
    with pytest.raises(OutputExistsError):
        package(artifact, tmp_path / "there.tar.gz")
    (artifact / "notes.txt").write_text("mine")
    with pytest.raises(ArtifactCorruptError, match=r"notes\.txt"):
        package(artifact, tmp_path / "b.tar.gz")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "there.tar.gz"]
    assert (tmp_path / "there.tar.gz").read_text() == "mine"


def test_an_artifact_with_other_captions_than_at_export_is_not_packaged(tiny_artifacts, tmp_path):
    artifact = shutil.copytree(tiny_artifacts["onnx-fp32"], tmp_path / "a")
    (caption,) = runtimes.load(artifact).caption([CAT])
    image = sha256_of(CAT)
    for ids, passes in ((caption.token_ids, True), ((*caption.token_ids[:2], 5, *caption.token_ids[3:]), False)):
        manifest = open_artifact(artifact).manifest
        sealed = replace(manifest, gate={**manifest.gate, "captions": {image: list(ids)}})
        (artifact / "manifest.json").write_bytes(sealed.content)
        if passes:
            package(artifact, tmp_path / "a.tar.gz")
        else:
            with pytest.raises(GoldenError, match=r"cat\.jpg"):
                package(artifact, tmp_path / "b.tar.gz")
    assert json_dataclass.dump(open_artifact(artifact).manifest)["gate"]["captions"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "a.tar.gz"]


def test_the_gate_records_the_captions_of_its_images(tiny_artifacts, drawn_images):
    artifact = tiny_artifacts["onnx-int8"]
    paths = [image.path for image in drawn_images]
    captions = [list(caption.token_ids) for caption in runtimes.load(artifact, device="cpu").caption(paths)]
    assert open_artifact(artifact).manifest.gate["captions"] == {sha256_of(path): ids for path, ids in zip(paths, captions, strict=True)}


def test_the_card_has_a_table_of_the_records_of_this_artifact_only(tiny_artifacts, tmp_path):
    records, artifact = read_records(GOLDEN_RECORDS), tiny_artifacts["onnx-int8"]
    manifest = open_artifact(artifact).manifest
    with pytest.raises(RecordError, match="tiny-onnx-int8"):
        measured_table(GOLDEN_RECORDS, manifest)
    case = next(record.case for record in records if record.subject and record.subject.manifest_digest)
    rewritten = [
        replace(record, subject=replace(record.subject, manifest_digest=manifest.digest)) if record.case == case else record
        for record in records
    ]
    write_records(tmp_path / "r.jsonl", rewritten)
    table = measured_table(tmp_path / "r.jsonl", manifest)
    cases = {record.case for record in rewritten if record.subject and record.subject.manifest_digest in (manifest.digest, None)}
    assert table == render_markdown([record for record in rewritten if record.case in cases])
    written = CliRunner().invoke(main, ["package", str(artifact), "-o", str(tmp_path / "a.tar.gz"), "--records", str(tmp_path / "r.jsonl")])
    assert (written.exit_code, written.stderr) == (0, "")
    unpack(tmp_path / "a.tar.gz", tmp_path / "a")
    assert f"## Measured\n\n{table}\n## Limits" in (tmp_path / "a" / "README.md").read_text()


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlanguage: en\nlicense: bsd-3-clause\n---\n# x\n", "bsd-3-clause"),
        ("# x\nlicense: mit\n", None),
        ("---\nlicense: [mit, apache]\n---\n", None),
        ("---\nlanguage: en\n---\nlicense: mit\n", None),
        (None, None),
    ],
)
def test_the_licence_is_read_from_the_checkpoints_card(tiny_checkpoint, tmp_path, card, licence):
    checkpoint = Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))
    if card is not None:
        (checkpoint / "README.md").write_text(card)
    assert open_checkpoint(str(checkpoint)).source.licence == licence


class TestCommands:
    def test_package_unpack_and_verify(self, tiny_artifacts, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        artifact = shutil.copytree(tiny_artifacts["onnx-int8"], tmp_path / "tiny.v1")
        packed = CliRunner().invoke(main, ["package", "tiny.v1"])
        name, digest_line = packed.stdout.splitlines()
        digest = digest_line.removeprefix("digest ")
        assert (packed.exit_code, packed.stderr, Path(name)) == (0, "", artifact.with_name("tiny.v1.tar.gz"))
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert CliRunner().invoke(main, ["unpack", name, "--digest", digest]).output == "tiny.v1\n"
        for path in ("tiny.v1", name):
            verified = CliRunner().invoke(main, ["verify", path, "--digest", digest, "--json"])
            assert (verified.exit_code, verified.stderr) == (0, "")
            assert json.loads(verified.stdout)["golden"]["equal"] == 6
        assert "as expected" in CliRunner().invoke(main, ["verify", "tiny.v1", "--digest", digest]).stdout

    def test_errors_are_one_line_and_with_json_an_object(self, tiny_artifacts, tmp_path):
        (tmp_path / "a.tar.gz").write_bytes(b"PK\x03\x04")
        failed = CliRunner().invoke(main, ["verify", str(tmp_path / "a.tar.gz"), "--json"])
        assert (failed.exit_code, len(failed.stderr.splitlines())) == (1, 1)
        assert json.loads(failed.stdout)["code"] == "ARCHIVE_INVALID"
        failed = CliRunner().invoke(main, ["package", str(tiny_artifacts["onnx-int8"]), "-o", str(tmp_path / "a.tar.gz")])
        assert failed.stderr.startswith(f"Error: {tmp_path / 'a.tar.gz'}: ")
        assert "--overwrite" in failed.stderr
        failed = CliRunner().invoke(main, ["package", str(tiny_artifacts["onnx-int8"]), "--platform", "win_amd64"])
        assert (failed.exit_code, "--with-wheels" in failed.stderr) == (2, True)


def test_a_newer_glibc_runs_wheels_of_older_ones():
    tags = compatible("manylinux_2_28_aarch64")
    assert (tags[0], tags[-1], "manylinux_2_17_aarch64" in tags) == ("manylinux_2_28_aarch64", "manylinux_2_5_aarch64", True)
    assert compatible("macosx_14_0_arm64") == ["macosx_14_0_arm64"]


def test_a_package_of_a_model_for_questions(tiny_vqa_artifacts, tmp_path):
    digest = package(tiny_vqa_artifacts["onnx-int8"], tmp_path / "a.tar.gz")
    unpack(tmp_path / "a.tar.gz", tmp_path / "a", digest)
    answerer, golden = runtimes.load(tmp_path / "a", task="vqa", device="cpu"), json.loads((tmp_path / "a" / "golden.json").read_bytes())
    for image in golden["images"]:
        for recorded in image["captions"]:
            (answer,) = answerer.answer(tmp_path / "a" / image["resized"], image["question"], num_beams=recorded["num_beams"])
            assert list(answer.token_ids) == recorded["token_ids"]
    report = verify(tmp_path / "a", digest=digest)
    assert report.golden is not None
    assert (report.task, report.golden.equal) == ("vqa", report.golden.captions)
    card = (tmp_path / "a" / "README.md").read_text()
    assert "toolkit ask" in card
    assert "toolkit caption" not in card
    golden["images"][0]["question"] = None
    corrupt(tmp_path / "a", golden)
    with pytest.raises(ArtifactCorruptError, match="question"):
        verify(tmp_path / "a")


def corrupt(folder, golden):
    """Replace golden.json, with a valid hash in the manifest."""
    (folder / "golden.json").write_text(json.dumps(golden))
    manifest = open_artifact(folder).manifest
    entry = replace(manifest.files["golden.json"], bytes=(folder / "golden.json").stat().st_size, sha256=sha256_of(folder / "golden.json"))
    (folder / "manifest.json").write_bytes(replace(manifest, files={**manifest.files, "golden.json": entry}).content)
