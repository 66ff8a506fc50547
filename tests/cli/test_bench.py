"""`toolkit bench` end to end on a tiny checkpoint: rows, failed cases and refused requests."""

import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from click.testing import CliRunner

import runtimes
from runtimes.artifact.folder import open_artifact
from runtimes.host.facts import read_host
from tests.cli.run_bench import PROMPT, run
from tests.paths import ROOT
from toolkit.bench.runner import NO_GPU, OTHER_DEVICE
from toolkit.cli import main
from toolkit.datasets import load_dataset
from toolkit.records.record_file import read_records
from toolkit.records.source_commit import source_commit
from toolkit.report.page import render_html
from toolkit.report.reproduction import commands
from toolkit.stats.rows import KEYS
from toolkit.tables.render import RENDERERS

REQUIRED_KEYS = (
    "case runtime seconds_per_image seconds_per_image_p90 images_per_second load_seconds first_caption_seconds encode_seconds step_seconds "
    "tokens_per_image peak_rss_bytes loaded_rss_bytes cpu_seconds_per_image artifact_bytes bleu4 cider rouge_l drift "
    "exact_match speedup size_ratio peak_rss_ratio bleu4_change bleu4_change_low bleu4_change_high cider_change cider_change_low "
    "cider_change_high recipe_sha256 error"
)
PARAMETERS = 71_936
"""Parameters of the tiny checkpoint; the tied head counts once."""


@pytest.fixture(scope="module")
def dataset(drawn_images, tmp_path_factory):
    """captions.json of three drawn images."""
    entries = [{"file": str(image.path), "captions": list(image.texts)} for image in drawn_images[:3]]
    return _captions(tmp_path_factory.mktemp("drawn-set") / "captions.json", entries)


def _captions(file, entries):
    file.write_text(json.dumps({"images": entries}), encoding="utf-8")
    return file


def error_of(result):
    """Return the only line of stderr, without "Error: "."""
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    return line.removeprefix("Error: ")


def broken_copy(artifact, to):
    """Copy an artifact and flip one bit of its encoder."""
    copy = shutil.copytree(artifact, to)
    (encoder,) = copy.glob("encoder-*.onnx")
    content = bytearray(encoder.read_bytes())
    content[len(content) // 2] ^= 1
    encoder.write_bytes(content)
    return copy


class Bench:
    """One benchmark run against transformers, with two good artifacts, a damaged one and one that targets a GPU."""

    def __init__(self, artifacts, checkpoint, dataset, folder):
        self.artifacts = {recipe: artifacts[recipe] for recipe in ("onnx-fp32", "pytorch-int8", "onnx-fp16")}
        self.artifacts["onnx-int8"] = broken_copy(artifacts["onnx-int8"], folder / "broken")
        self.output, self.page = folder / "r.jsonl", folder / "r.html"
        order = ("onnx-fp32", "onnx-int8", "pytorch-int8", "onnx-fp16")
        arguments = ("--checkpoint", checkpoint, "--dataset", dataset, "--repeat", 2, "--warmup", 1, "--threads", 1, "--format", "json")
        self.result = run(*(self.artifacts[recipe] for recipe in order), *arguments, "--output", self.output, "--report", self.page)
        self.records = read_records(self.output)
        self.report = json.loads(self.result.stdout)
        self.rows = {row["case"]: row for row in self.report["rows"]}


@pytest.fixture(scope="module")
def bench(tiny_artifacts, tiny_checkpoint, dataset, tmp_path_factory):
    return Bench(tiny_artifacts, tiny_checkpoint, dataset, tmp_path_factory.mktemp("bench"))


def test_failed_cases_are_warnings_and_the_exit_code_is_0(bench):
    assert bench.result.exit_code == 0
    broken, absent, page = bench.result.stderr.splitlines()
    assert broken.startswith(f"WARNING onnx-int8: {bench.artifacts['onnx-int8']}/encoder-")
    assert absent.startswith("WARNING onnx-fp16: ")
    assert page == f"Open in a browser: {bench.page}"


def test_the_page_shows_its_records_and_images(bench, dataset):
    assert bench.page.read_text(encoding="utf-8") == render_html(bench.records, load_dataset(str(dataset)))


def test_rows_have_the_documented_keys(bench):
    assert set(REQUIRED_KEYS.split()) <= set(KEYS)
    assert [list(row) for row in bench.report["rows"]] == [list(KEYS)] * 5
    assert (bench.report["schema"], bench.report["dataset"]["images"]) == (1, 3)


def test_each_repeat_runs_every_case(bench):
    cases = ["hf-fp32", "onnx-fp32", "onnx-int8", "pytorch-int8", "onnx-fp16"]
    assert [(record.repeat, record.case) for record in bench.records] == [(repeat, case) for repeat in (0, 1) for case in cases]
    assert list(bench.rows) == cases


def test_records_have_time_and_source_commit(bench):
    assert {record.commit for record in bench.records} == {source_commit()}
    times = [record.measured_at for record in bench.records]
    assert [time for time in times if not re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", time)] == []
    assert times == sorted(times)
    assert (bench.report["commit"], bench.report["measured_at"]) == (source_commit(), times[0])


def test_the_captions_of_the_fp32_artifact_equal_the_baselines(bench):
    row = bench.rows["onnx-fp32"]
    assert row["exact_match"] == 1.0
    assert abs(row["drift"]) < 1e-3
    assert [row[f"{name}_change"] for name in ("cider", "rouge_l")] == pytest.approx([0.0, 0.0])
    first = {record.case: record for record in bench.records if record.repeat == 0}
    captions = {case: [image.caption for image in record.quality] for case, record in first.items() if record.quality}
    assert captions["onnx-fp32"] == captions["hf-fp32"]
    assert all(captions["hf-fp32"])
    assert [image.tokens for image in first["onnx-fp32"].quality] == [image.tokens for image in first["hf-fp32"].quality]
    assert [image.log_probability for image in first["onnx-fp32"].quality] == pytest.approx(
        [image.log_probability for image in first["hf-fp32"].quality], abs=1e-3
    )


def test_the_quantized_artifact_is_close(bench):
    row = bench.rows["pytorch-int8"]
    assert 0 < abs(row["drift"]) < 0.05
    assert row["drift_low"] <= row["drift"] <= row["drift_high"]
    assert 0 < row["kl_low"] <= row["kl"] <= row["kl_high"] < 0.1
    assert bench.rows["onnx-fp32"]["kl"] < 1e-4, "only the rounding of the stored distributions"


def test_sizes(bench, tiny_checkpoint):
    for recipe in ("onnx-fp32", "pytorch-int8"):
        total = sum(file.stat().st_size for file in bench.artifacts[recipe].iterdir())
        assert (bench.rows[recipe]["artifact_bytes"], bench.rows[recipe]["disk_bytes"]) == (total, total)
        assert bench.rows[recipe]["size_ratio"] == total / (4 * PARAMETERS)
    base = bench.rows["hf-fp32"]
    assert (base["artifact_bytes"], base["disk_bytes"]) == (4 * PARAMETERS, (tiny_checkpoint / "model.safetensors").stat().st_size)
    assert (base["speedup"], base["size_ratio"], base["peak_rss_ratio"], base["exact_match"]) == (1.0, 1.0, 1.0, 1.0)


def test_successful_cases_have_every_figure(bench):
    for case in ("hf-fp32", "onnx-fp32", "pytorch-int8"):
        row = bench.rows[case]
        measured = [
            key
            for key in KEYS[: KEYS.index("text_seconds")]  # what follows is of other tasks
            if not key.endswith(("_change", "_low", "_high"))
            and key
            not in (
                "recipe_sha256",
                "error",
                "verdict",
                "verdict_text",
                "images_needed",
                "kl",
                "setting",
                "forced_tokens",
                "hash_seconds",
                "tokens_per_step",
                "joules_per_image",
                "peak_gpu_bytes",
                "token_limit_share",  # absent if the bandwidth of a busy machine is not reproducible
                "approximate",
                "drift_limit",
            )
        ]
        assert [key for key in measured if row[key] is None] == [], case
        positive = [key for key in measured if key.endswith(("seconds", "per_image", "per_second", "_bytes", "_ratio", "speedup", "_p90"))]
        assert [key for key in positive if not row[key] > 0 or not math.isfinite(row[key])] == [], case
        assert row["seconds_per_image_low"] <= row["seconds_per_image_high"]
        assert row["speedup_low"] <= row["speedup"] <= row["speedup_high"]
        assert row["peak_rss_bytes"] >= row["loaded_rss_bytes"]
        recipe = None if case == "hf-fp32" else open_artifact(bench.artifacts[case]).manifest.recipe["sha256"]
        assert (row["recipe_sha256"], row["error"], row["verdict_text"] is None) == (recipe, None, case == "hf-fp32")
        assert (row["kl"] is None) == (case == "hf-fp32")
    runtime = [bench.rows[case]["runtime"] for case in ("hf-fp32", "onnx-fp32", "pytorch-int8")]
    assert runtime == ["transformers", "ort", "torch"]


def test_failed_cases_have_only_their_error(bench):
    broken, absent = bench.rows["onnx-int8"], bench.rows["onnx-fp16"]
    assert broken["error"].startswith(f"{bench.artifacts['onnx-int8']}/encoder-")
    assert "sha256" in broken["error"]
    assert absent["error"].startswith(OTHER_DEVICE if read_host().cuda else NO_GPU)
    for row in (broken, absent):
        assert [key for key in KEYS if row[key] is not None] == ["case", "error", "batch_size", "threads"]


def test_the_report_is_reproduced_from_the_records(bench):
    result = CliRunner().invoke(main, ["report", str(bench.output), "--format", "json"])
    assert (result.exit_code, result.stdout) == (0, bench.result.stdout)
    text = RENDERERS["md"](bench.records)
    assert f"Failed:\n- onnx-int8: {bench.rows['onnx-int8']['error']}\n- onnx-fp16: {bench.rows['onnx-fp16']['error']}\n" in text


@pytest.mark.full
def test_the_prompt_is_removed_before_scoring(tiny_artifacts, drawn_images, tmp_path):
    """The references are the artifact's own captions without the prompt, so scores are perfect if the prompt is not scored."""
    artifact = tiny_artifacts["onnx-fp32"]
    captioner = runtimes.load(artifact)
    entries = []
    for image in drawn_images[:6]:
        (caption,) = captioner.caption([image.path], prompt=PROMPT, max_length=20)
        stripped = captioner.strip_prompt(caption, PROMPT)
        if len(stripped.split()) >= 5:
            entries.append({"file": str(image.path), "captions": [stripped]})
    assert len(entries) >= 2
    output = tmp_path / "r.jsonl"
    arguments = ("--prompt", PROMPT, "--repeat", 1, "--warmup", 1, "--output", output, "--format", "json")
    result = run(artifact, "--dataset", _captions(tmp_path / "captions.json", entries), *arguments)
    assert result.exit_code == 0
    assert result.stderr.startswith("WARNING no baseline: ")
    (row,) = json.loads(result.stdout)["rows"]
    assert [row[key] for key in ("bleu1", "bleu4", "rouge_l")] == pytest.approx([1.0, 1.0, 1.0])
    (record,) = read_records(output)
    assert all(image.caption.startswith(PROMPT) for image in record.quality), "records keep the whole caption"
    assert [row[key] for key in ("speedup", "exact_match", "drift")] == [None] * 3


HIDDEN = """
import sys
sys.modules.update(dict.fromkeys(("torch", "transformers", "safetensors", "optimum", "onnx")))
from toolkit.cli import main
from toolkit.report.page import render_html
from toolkit.report.reproduction import commands
main(sys.argv[1:])
"""
"""Program that runs the toolkit as if the libraries of the export extra were not installed."""


@pytest.mark.full
def test_without_transformers_the_artifacts_are_measured_without_baseline(tiny_artifacts, tiny_checkpoint, dataset, tmp_path):
    artifacts = [str(tiny_artifacts[recipe]) for recipe in ("onnx-fp32", "onnx-int8")]
    arguments = ["--checkpoint", str(tiny_checkpoint), "--dataset", str(dataset), "--repeat", "1", "--warmup", "1", "--format", "json"]
    command = [sys.executable, "-c", HIDDEN, "bench", *artifacts, *arguments]
    environment = {**os.environ, "HF_EVALUATE_OFFLINE": "1"}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert ended.returncode == 0
    (line,) = ended.stderr.splitlines()
    assert line.startswith("WARNING no baseline: ")
    assert "pip install 'blip-toolkit[export]'" in line
    rows = json.loads(ended.stdout)["rows"]
    assert [(row["case"], row["error"], row["speedup"]) for row in rows] == [("onnx-fp32", None, None), ("onnx-int8", None, None)]
    assert all(row["cider"] is not None for row in rows)


@pytest.mark.full
def test_if_every_case_fails_the_table_is_printed_and_the_exit_code_is_1(tiny_artifacts, dataset, tmp_path):
    broken = broken_copy(tiny_artifacts["onnx-fp32"], tmp_path / "broken")
    result = run(broken, "--dataset", dataset, "--repeat", 1, "--quiet")
    assert result.exit_code == 1
    assert result.stdout.startswith(f"Failed:\n- onnx-fp32: {broken}/encoder-")
    assert result.stderr == "Error: every case failed\n", "--quiet hides warnings"
    report = run(broken, "--dataset", dataset, "--repeat", 1, "--quiet", "--format", "json")
    assert (report.exit_code, json.loads(report.stdout)["rows"][0]["case"]) == (1, "onnx-fp32")


@pytest.fixture
def names(tiny_artifacts, tiny_checkpoint, mini_checkpoint, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "kept.jsonl").write_text("mine")
    return {
        "fp32": tiny_artifacts["onnx-fp32"],
        "int8": tiny_artifacts["onnx-int8"],
        "tiny": tiny_checkpoint,
        "mini": mini_checkpoint,
        "tmp": tmp_path,
        "sample": ROOT / "toolkit" / "sample",
    }


@pytest.mark.parametrize(
    ("arguments", "code", "facts"),
    [
        ("{tmp}/none", "ARTIFACT_MISSING", ["{tmp}/none: ", "toolkit export CHECKPOINT"]),
        ("{fp32} {tmp}/empty", "ARTIFACT_MISSING", ["{tmp}/empty: ", "toolkit export CHECKPOINT"]),
        ("{fp32} --output {tmp}/kept.jsonl", "OUTPUT_EXISTS", ["{tmp}/kept.jsonl: ", "--overwrite"]),
        ("{fp32} --output {tmp}/none/r.jsonl", "OUTPUT_UNWRITABLE", ["{tmp}/none/r.jsonl: ", "no folder {tmp}/none"]),
        ("{fp32} --checkpoint {tmp}/none", "CHECKPOINT_UNUSABLE", ["{tmp}/none: ", "no such"]),
        ("{fp32} --checkpoint {mini}", "REQUEST_INVALID", ["checkpoint"]),
        ("{fp32} {fp32} --checkpoint {tiny}", "REQUEST_INVALID", ["same name", "tiny-onnx-fp32"]),
        ("{fp32} --dataset {tmp}/none.json", "DATASET_UNUSABLE", ["{tmp}/none.json: ", "No such file"]),
        ("{fp32} --images {tmp}/none", "DATASET_UNUSABLE", ["{tmp}/none: ", "no such folder"]),
        ("{fp32} --images {tmp}/empty", "DATASET_UNUSABLE", ["{tmp}/empty: ", "no images"]),
        ("{fp32} --checkpoint {tiny} --images {sample} --limit 3 --batch-size 2,4", "REQUEST_INVALID", ["4", "3", "--batch-size"]),
    ],
)
def test_an_invalid_request_is_a_one_line_error(names, arguments, code, facts):
    result = run(*(word.format(**names) for word in arguments.split()), "--json")
    error = json.loads(result.stdout)
    assert (result.exit_code, error["code"], result.stderr) == (1, code, f"Error: {error['error']}\n")
    assert [fact for fact in facts if fact.format(**names) not in error["error"]] == []
    assert sorted(file.name for file in names["tmp"].iterdir()) == ["empty", "kept.jsonl"]
    assert (names["tmp"] / "kept.jsonl").read_text() == "mine"


@pytest.mark.full
def test_without_arguments_the_artifacts_under_build_are_measured_against_their_checkpoint(
    tiny_artifacts, tiny_checkpoint, dataset, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert "build/artifacts" in error_of(run())
    for recipe in ("onnx-fp32", "onnx-int8"):
        shutil.copytree(tiny_artifacts[recipe], tmp_path / "build" / "artifacts" / recipe)
    shutil.copytree(tiny_checkpoint, tmp_path / "models" / "blip-mini-coco")
    result = run("--dataset", dataset, "--limit", 1, "--repeat", 1, "--warmup", 1, "--format", "json")
    assert [row["case"] for row in json.loads(result.stdout)["rows"]] == ["hf-fp32", "onnx-fp32", "onnx-int8"]
    chosen, baseline = result.stderr.splitlines()
    assert "build/artifacts" in chosen
    assert "models/blip-mini-coco" in baseline


@pytest.mark.full
def test_a_checkpoint_that_the_artifacts_were_not_made_from_is_no_default(tiny_artifacts, mini_checkpoint, dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "blip-mini-coco").symlink_to(mini_checkpoint)
    result = run(tiny_artifacts["onnx-fp32"], "--dataset", dataset, "--limit", 1, "--repeat", 1, "--format", "json")
    assert [row["case"] for row in json.loads(result.stdout)["rows"]] == ["onnx-fp32"]
    assert "no baseline" in result.stderr
    assert "--checkpoint" in result.stderr


@pytest.mark.full
def test_the_commands_on_the_page_measure_the_same_again(tiny_artifacts, tiny_checkpoint, dataset, tmp_path, monkeypatch):
    """The commands run in the folder of the first run, since they contain the names that the user gave, here relative paths."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(dataset.parent, tmp_path / "my set")
    shutil.copytree(tiny_checkpoint, tmp_path / "check point")
    shutil.copytree(tiny_artifacts["onnx-fp32"], tmp_path / "build" / "artifacts" / "onnx-fp32")
    arguments = ("--checkpoint", "check point", "--dataset", "my set", "--limit", 2, "--prompt", PROMPT, "--tokens", 4)
    assert run(*arguments, "--repeat", 1, "--warmup", 1, "--threads", 1, "--output", "records.jsonl").exit_code == 0
    first = read_records(tmp_path / "records.jsonl")
    export, bench, report = commands(first)
    assert shlex.split(export)[1:5] == ["export", "check point", "--recipe", "onnx-fp32"]
    shutil.copytree(tmp_path / "build" / "artifacts", tmp_path / "build" / "artifacts-again")  # an export of random weights fails its gate
    for line in (bench, report):
        result = CliRunner().invoke(main, shlex.split(line)[1:], prog_name="toolkit")
        assert result.exit_code == 0, result.output
    (again,) = tmp_path.glob("*again.jsonl")
    second = read_records(again)
    assert [record.workload for record in second] == [record.workload for record in first]
    assert [record.quality for record in second] == [record.quality for record in first]
    assert [file.name for file in tmp_path.glob("*.html")] == ["report-again.html"]


@pytest.mark.full
def test_the_baseline_runs_with_the_options_of_the_search(tiny_artifacts, tiny_checkpoint, dataset, tmp_path):
    output = tmp_path / "r.jsonl"
    options = ("--repetition-penalty", 1.5, "--max-new-tokens", 6, "--suppress-tokens", "7,12", "--num-beams", 3)
    case = (tiny_artifacts["onnx-fp32"], "--checkpoint", tiny_checkpoint, "--dataset", dataset, "--repeat", 1, "--threads", 1)
    assert run(*case, *options, "--output", output).exit_code == 0
    artifact, baseline = sorted(read_records(output), key=lambda record: record.case, reverse=True)
    assert artifact.workload.generation == {"repetition_penalty": 1.5, "suppress_tokens": [7, 12]}
    assert [image.caption for image in artifact.quality] == [image.caption for image in baseline.quality]
    assert max(image.tokens for image in artifact.quality) == 6
    (again,) = [line for line in commands([artifact]) if line.startswith("toolkit bench")]
    assert "--max-length 7 " in again
    assert "--repetition-penalty 1.5 --suppress-tokens 7,12" in again
