"""The same commands for every task: export, info, package, verify, unpack, bench, report and compare, on a tiny checkpoint of each."""

import json

import pytest
from click.testing import CliRunner

from toolkit.cli import main

pytestmark = pytest.mark.full

RUN = {
    "caption": ("caption", lambda row: row["caption"]),
    "vqa": ("ask", lambda row: row["answer"]),
    "matching": ("match", lambda row: row["matches"]),
}
"""Task → its command, and the result in a row of its JSON."""
OPTIONS = {"caption": (), "vqa": ("--question", "a dog on grass"), "matching": ("--text", "a dog on grass")}
CHECKPOINTS = {"caption": "tiny_checkpoint", "vqa": "tiny_vqa_checkpoint", "matching": "tiny_matcher"}
FIGURES = {"caption": ("bleu4", "drift"), "vqa": ("vqa_accuracy", "drift"), "matching": ("image_recall_1", "probability_change")}
LIMITS = {"caption": "drift>100", "vqa": "drift>100", "matching": "probability_change>1"}


def run(*arguments):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result


@pytest.mark.parametrize("task", CHECKPOINTS)
def test_a_tiny_checkpoint_goes_through_every_command(request, task, sample_images, tmp_path):
    checkpoint = request.getfixturevalue(CHECKPOINTS[task])
    recipes = [part for recipe in ("onnx-int8", "pytorch-fp32") for part in ("--recipe", recipe)]
    artifacts = tmp_path / "artifacts"
    paths = run("export", checkpoint, *recipes, "--output", artifacts, "--on-gate-failure", "write").stdout.split()
    assert [json.loads(run("info", path, "--json").stdout)["task"] for path in paths] == [task, task]
    package = tmp_path / "package.tar.gz"
    digest = run("package", paths[0], "--output", package).stdout.split()[-1]
    verified = json.loads(run("verify", package, "--digest", digest, "--json").stdout)
    assert verified["golden"]["equal"] == verified["golden"]["captions"] > 0
    run("unpack", package, "--output", tmp_path / "device")
    command, result_of = RUN[task]
    assert result_of(json.loads(run(command, tmp_path / "device", sample_images[0].path, *OPTIONS[task], "--json").stdout))
    records, page = tmp_path / "records.jsonl", tmp_path / "page.html"
    options = ("--checkpoint", checkpoint, "--repeat", 2, "--warmup", 1, "--threads", 1)
    run("bench", artifacts, *options, "--output", records, "--report", page)
    rows = {row["case"]: row for row in json.loads(run("report", records, "--format", "json").stdout)["rows"]}
    assert set(rows) == {"hf-fp32", "onnx-int8", "pytorch-fp32"}
    for row in rows.values():
        assert row["error"] is None
        assert row["seconds_per_image"] > 0
        assert all(row[figure] is not None for figure in FIGURES[task])
    assert rows["pytorch-fp32"]["exact_match"] == 1
    assert rows["pytorch-fp32"]["verdict"] == "no loss"
    assert "data:image/jpeg" in page.read_text(encoding="utf-8")
    run("compare", records, records, "--fail-if", LIMITS[task])
    run("package", paths[0], "--output", tmp_path / "measured.tar.gz", "--records", records)
