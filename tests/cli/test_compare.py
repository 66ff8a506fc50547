"""`toolkit compare` and `toolkit report` over several runs: the golden texts come out, limits fail, and refusals are one line."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.golden.__main__ import LIMITS, before_and_after, compared
from tests.paths import GOLDEN
from toolkit.cli import main
from toolkit.records.record import write_records

NUMBER = re.compile(r"(-?\d+\.\d+(?:e[-+]?\d+)?)")
"""Fractions: libraries may differ in the last bit of a logarithm."""


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Write before.jsonl and after.jsonl, and go where they are."""
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
    assert (result.exit_code, result.stderr) == (1, "Error: 4 limits broken\n")
    assert result.stdout == compared()[f"compare.{layout}"]


@pytest.mark.parametrize("name", ["compare.md", "compare.json", "history.md", "history.csv", "history.json"])
def test_equals_the_golden_file(name):
    made, golden = (NUMBER.split(text) for text in (compared()[name], (GOLDEN / name).read_text(encoding="utf-8")))
    assert made[::2] == golden[::2], "everything but the fractions"
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
    assert (result.exit_code, result.stderr) == (1, "Error: 1 limit broken\n"), "the loss of CIDEr-D is not clear"
    assert "\nhf-fp32 against onnx-int8:\n" in result.stdout
    assert "- hf-fp32 against onnx-int8: artifact_bytes>-80%: smaller by 75.0%\n" in result.stdout
    assert invoke("compare", "before.jsonl", "before.jsonl", "--case", "hf-fp32=onnx-int8", *limits, "--strict").stderr == (
        "Error: 3 limits broken\n"
    )


@pytest.mark.usefixtures("runs")
def test_the_baseline_breaks_no_limit():
    """It is slower where the machine is, and no work of ours."""
    result = invoke("compare", "before.jsonl", "after.jsonl", "--case", "hf-fp32", "--fail-if", "seconds_per_image>-90%")
    assert (result.exit_code, result.stderr) == (0, "")


@pytest.mark.usefixtures("runs")
def test_several_files_show_change_over_time():
    for layout in ("md", "csv", "json"):
        result = invoke("report", "after.jsonl", "before.jsonl", "--format", layout)
        assert (result.exit_code, result.stderr, result.stdout) == (0, "", compared()[f"history.{layout}"])


def other_machine():
    after = before_and_after()[1].records
    write_records(Path("other.jsonl"), [replace(one, host=replace(one.host, cpu="Other CPU")) for one in after])


@pytest.mark.usefixtures("runs")
def test_another_machine_is_refused_unless_told():
    other_machine()
    result = invoke("compare", "before.jsonl", "other.jsonl")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "Error: before.jsonl and other.jsonl: host cpu is 'Example CPU' and 'Other CPU'; --different-hosts compares them all the same\n"
    )
    assert invoke("compare", "before.jsonl", "other.jsonl", "--different-hosts").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["before.jsonl", "none.jsonl"], 1, "Error: none.jsonl: cannot be read: No such file or directory"),
        (["before.jsonl", "after.jsonl", "--case", "int2"], 1, "Error: before.jsonl has no case 'int2'; it has: hf-fp32, onnx-int8, "),
        (
            ["before.jsonl", "after.jsonl", "--fail-if", "x>1"],
            2,
            "Error: Invalid value for '--fail-if': unknown measure 'x'; known: seconds",
        ),
        (["before.jsonl", "after.jsonl", "--fail-if", "cider"], 2, "Error: Invalid value for '--fail-if': 'cider' is no limit; one is "),
        (["before.jsonl", "after.jsonl", "--case", "onnx-fp16"], 1, "Error: no case has figures in both: onnx-fp16: failed in A: not run"),
    ],
)
@pytest.mark.usefixtures("runs")
def test_what_cannot_be_done_is_one_line(arguments, code, error):
    result = invoke("compare", *arguments)
    assert result.exit_code == code
    assert result.stderr.splitlines()[-1].startswith(error)
    assert "Traceback" not in result.output
