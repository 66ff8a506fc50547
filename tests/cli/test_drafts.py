"""Draft tables on the command line: `export` makes them, `caption` and `bench` use them or not, `info` and `verify` show them."""

import json

import pytest
from click.testing import CliRunner

import runtimes
from runtimes.artifact.folder import open_artifact
from runtimes.decoding.drafts.draft_table import ROLE
from tests.drafted import certain_table, drafted_copy
from toolkit.cli import main


def run(*arguments):
    return CliRunner().invoke(main, [*map(str, arguments)], prog_name="toolkit")


@pytest.fixture(scope="module")
def drafted(tiny_artifacts, drawn_images, tmp_path_factory):
    """An FP32 artifact whose table has its own captions of the drawn images."""
    captions = runtimes.load(tiny_artifacts["onnx-fp32"], threads=1).caption([image.path for image in drawn_images])
    table = certain_table(caption.token_ids for caption in captions)
    return drafted_copy(tiny_artifacts["onnx-fp32"], tmp_path_factory.mktemp("drafts") / "tiny", table)


@pytest.mark.full
def test_export_makes_a_table_and_declares_it(tiny_checkpoint, drawn_images, tmp_path):
    arguments = ("export", tiny_checkpoint, "--recipe", "onnx-fp32", "--on-gate-failure", "write", "--output", tmp_path)
    (tmp_path / "captions.txt").write_text("the dog runs\n" * 20, encoding="utf-8")
    assert run(*arguments, "--draft-text", tmp_path / "captions.txt").exit_code == 0
    artifact = open_artifact(tmp_path / "tiny-onnx-fp32")
    assert artifact.path_of(ROLE).stat().st_size <= 300_000
    assert artifact.manifest.optional[ROLE]["step_costs"][0] == 1.0
    assert "drafts" in run("info", artifact.path).stdout
    assert run(*arguments, "--no-draft", "--overwrite").exit_code == 0
    assert open_artifact(artifact.path).manifest.optional == {}


@pytest.mark.parametrize(
    "options",
    [
        ("--no-draft", "--draft-text", "captions.txt"),
        ("--draft-text", "missing.txt"),
        ("--draft-images", "missing"),
        ("--draft-images", "."),
    ],
)
def test_invalid_sources_are_refused_before_anything_is_built(tiny_checkpoint, tmp_path, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    result = run("export", tiny_checkpoint, "--recipe", "onnx-fp32", *options)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert list(tmp_path.iterdir()) == []


def test_captions_are_the_same_with_and_without_drafts(drafted, drawn_images):
    paths = [image.path for image in drawn_images[:6]]
    rows = [json.loads(line) for line in run("caption", drafted, *paths, "--json").stdout.splitlines()]
    for option in (("--no-draft",), ("--draft", "table")):
        others = [json.loads(line) for line in run("caption", drafted, *paths, "--json", *option).stdout.splitlines()]
        assert [row["token_ids"] for row in others] == [row["token_ids"] for row in rows]
        assert [row["score"] for row in others] == pytest.approx([row["score"] for row in rows], abs=1e-4)


def test_drafts_that_an_artifact_cannot_make_are_refused(tiny_artifacts, drawn_images, drafted):
    image = drawn_images[0].path
    for artifact, options in ((tiny_artifacts["onnx-fp32"], ("--draft", "table")), (drafted, ("--draft", "table", "--no-draft"))):
        result = run("caption", artifact, image, *options)
        assert result.exit_code == 1
        assert result.stderr.startswith("Error: ")


@pytest.mark.full
def test_bench_counts_tokens_per_step(drafted, tiny_checkpoint, drawn_images, tmp_path):
    arguments = ("bench", drafted, "--checkpoint", tiny_checkpoint, "--images", drawn_images[0].path.parent, "--limit", 4, "--repeat", 1)
    for options, above in (((), True), (("--no-draft",), False)):
        result = run(*arguments, "--json", "--overwrite", "--output", tmp_path / "records.jsonl", *options)
        assert result.exit_code == 0, result.output
        rows = {row["case"]: row for row in json.loads(result.stdout)["rows"]}
        assert (rows["onnx-fp32"]["tokens_per_step"] > 1.2) == above
        assert rows["hf-fp32"]["tokens_per_step"] is None
        assert ("tokens/step" in run("report", tmp_path / "records.jsonl").stdout) == above


@pytest.mark.full
def test_verify_replays_golden_captions_with_and_without_drafts(drafted, tmp_path):
    archive = tmp_path / "tiny.tar.gz"
    assert run("package", drafted, "--output", archive).exit_code == 0
    report = run("verify", archive)
    assert report.exit_code == 0, report.output
    assert "with drafts 3 of 3" in report.stdout
