"""`toolkit compare`, and `toolkit report` of several runs: golden texts, limits, and one-line errors."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.golden.__main__ import LIMITS, before_and_after, compared
from tests.paths import GOLDEN
from toolkit.cli import main
from toolkit.records.record_file import write_records

NUMBER = re.compile(r"(-?\d+\.\d+(?:e[-+]?\d+)?)")
"""Fractions, which may differ in the last bit between versions of the C library's logarithm."""


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Write before.jsonl and after.jsonl to a folder and change into it."""
    for run in before_and_after():
        write_records(tmp_path / run.name, run.records)
    monkeypatch.chdir(tmp_path)


def invoke(*arguments):
    return CliRunner().invoke(main, arguments, prog_name="toolkit")


FAIL_IF = [word for limit in LIMITS for word in ("--fail-if", limit)]


@pytest.mark.parametrize(("layout", "options"), [("md", []), ("json", ["--json"])])
@pytest.mark.usefixtures("runs")
def test_prints_the_golden_text_and_fails(layout, options):
    result = invoke("compare", "before.jsonl", "after.jsonl", *FAIL_IF, *options)
    assert (result.exit_code, result.stderr) == (1, "Error: 4 limits violated\n")
    assert result.stdout == compared()[f"compare.{layout}"]


@pytest.mark.parametrize("name", ["compare.md", "compare.json", "history.md", "history.csv", "history.json"])
def test_equals_the_golden_file(name):
    made, golden = (NUMBER.split(text) for text in (compared()[name], (GOLDEN / name).read_text(encoding="utf-8")))
    assert made[::2] == golden[::2], "all text except the fractions"
    assert [float(number) for number in made[1::2]] == pytest.approx([float(number) for number in golden[1::2]], rel=1e-12, abs=0)


@pytest.mark.usefixtures("runs")
def test_a_run_against_itself_passes():
    limits = ("seconds_per_image>+1%", "cider<-1%", "artifact_bytes>0%", "drift>0.03")
    arguments = [word for limit in limits for word in ("--fail-if", limit)]
    result = invoke("compare", "before.jsonl", "before.jsonl", *arguments, "--case", "hf-fp32", "--case", "onnx-int8", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    assert report["passed"] is True
    assert [(case["case"], case["same_captions"]) for case in report["cases"]] == [("hf-fp32", 1.0), ("onnx-int8", 1.0)]


@pytest.mark.usefixtures("runs")
def test_one_case_against_another_of_the_same_run():
    limits = ("--fail-if", "cider<-1%", "--fail-if", "rouge_l<-1%", "--fail-if", "artifact_bytes>-80%")
    result = invoke("compare", "before.jsonl", "before.jsonl", "--case", "hf-fp32=onnx-int8", *limits)
    assert (result.exit_code, result.stderr) == (1, "Error: 1 limit violated\n"), "the loss of CIDEr-D is not clear"
    assert "\nhf-fp32 against onnx-int8:\n" in result.stdout
    assert "- hf-fp32 against onnx-int8: artifact_bytes>-80%: smaller by 75.0%\n" in result.stdout
    strict = invoke("compare", "before.jsonl", "before.jsonl", "--case", "hf-fp32=onnx-int8", *limits, "--strict")
    assert strict.stderr == "Error: 3 limits violated\n"


@pytest.mark.usefixtures("runs")
def test_the_baseline_has_limits_only_if_it_is_named():
    """Its time depends on the machine and on transformers, not on an artifact."""
    limit = ("--fail-if", "seconds_per_image>-90%", "--json")
    lines = {line["case"]: line for line in json.loads(invoke("compare", "before.jsonl", "after.jsonl", *limit).stdout)["cases"]}
    assert [len(lines[case]["violations"]) for case in ("hf-fp32", "onnx-int8")] == [0, 1]
    named = invoke("compare", "before.jsonl", "after.jsonl", "--case", "hf-fp32", *limit)
    assert (named.exit_code, named.stderr) == (1, "Error: 1 limit violated\n")


@pytest.mark.usefixtures("runs")
def test_several_files_show_change_over_time():
    for layout in ("md", "csv", "json"):
        result = invoke("report", "after.jsonl", "before.jsonl", "--format", layout)
        assert (result.exit_code, result.stderr, result.stdout) == (0, "", compared()[f"history.{layout}"])


def write_other_machine():
    after = before_and_after()[1].records
    write_records(Path("other.jsonl"), [replace(record, host=replace(record.host, cpu="Other CPU")) for record in after])


@pytest.mark.usefixtures("runs")
def test_another_machine_is_refused_unless_an_option_allows_it():
    write_other_machine()
    result = invoke("compare", "before.jsonl", "other.jsonl", "--json")
    error = json.loads(result.stdout)
    assert (result.exit_code, error["code"]) == (1, "RECORD_UNREADABLE")
    for fact in ("before.jsonl", "other.jsonl", "'Example CPU' and 'Other CPU'", "--allow-different-hosts"):
        assert fact in error["error"]
    assert invoke("compare", "before.jsonl", "other.jsonl", "--allow-different-hosts").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "exit_code", "code", "facts"),
    [
        (["before.jsonl", "none.jsonl"], 1, "RECORD_UNREADABLE", ["none.jsonl", "No such file"]),
        (["before.jsonl", "after.jsonl", "--case", "int2"], 1, "REQUEST_INVALID", ["before.jsonl", "'int2'", "hf-fp32, onnx-int8, "]),
        (["before.jsonl", "after.jsonl", "--fail-if", "x>1"], 2, "USAGE", ["--fail-if", "'x'", "seconds_per_image"]),
        (["before.jsonl", "after.jsonl", "--fail-if", "cider"], 2, "USAGE", ["--fail-if", "'cider'", "cider<-1%"]),
        (["before.jsonl", "after.jsonl", "--case", "onnx-fp16"], 1, "REQUEST_INVALID", ["onnx-fp16: failed in A: not run"]),
    ],
)
@pytest.mark.usefixtures("runs")
def test_an_invalid_request_is_a_one_line_error(arguments, exit_code, code, facts):
    result = invoke("compare", *arguments, "--json")
    error = json.loads(result.stdout)
    assert (result.exit_code, error["code"]) == (exit_code, code)
    assert result.stderr.splitlines()[-1] == f"Error: {error['error']}"
    assert [fact for fact in facts if fact not in error["error"]] == []
