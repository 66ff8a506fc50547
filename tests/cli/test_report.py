"""`toolkit report`: tables equal to the golden files, the HTML page, and one-line errors for invalid records."""

import json
import sys
from dataclasses import replace

import pytest
from click.testing import CliRunner

from tests.paths import GOLDEN
from toolkit.cli import main
from toolkit.compare.history import history_sheet
from toolkit.compare.pairing import BenchRun
from toolkit.records.record_file import read_records, write_records
from toolkit.report.page import render_html
from toolkit.tables.render import RENDERERS

RECORDS = GOLDEN / "records.jsonl"


def run(*arguments):
    return CliRunner().invoke(main, ["report", *map(str, arguments)], prog_name="toolkit")


@pytest.mark.parametrize("layout", RENDERERS)
def test_prints_the_text_of_the_renderer(layout):
    result = run(RECORDS, "--format", layout)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == RENDERERS[layout](read_records(RECORDS))


def test_writes_a_page(tmp_path):
    file = tmp_path / "report.html"
    result = run(RECORDS, "--format", "html", "--no-images", "-o", file)
    assert (result.exit_code, result.output) == (0, "")
    assert file.read_text(encoding="utf-8") == render_html(read_records(RECORDS))
    again = run(RECORDS, "--format", "html", "--no-images", "-o", file)
    assert again.exit_code == 1
    assert again.stderr.startswith(f"Error: {file}: ")
    assert "--overwrite" in again.stderr
    assert run(RECORDS, "-o", file, "--overwrite").exit_code == 0
    assert file.read_text(encoding="utf-8") == RENDERERS["md"](read_records(RECORDS))


def test_a_page_of_several_files_shows_the_newest_one_and_the_history(tmp_path):
    later = tmp_path / "later.jsonl"
    records = [replace(record, measured_at="2026-11-24T12:00:00Z") for record in read_records(RECORDS)]
    write_records(later, records)
    result = run(later, RECORDS, "--format", "html", "--no-images")
    assert (result.exit_code, result.stderr) == (0, "")
    history = history_sheet([BenchRun(name=str(file), records=read_records(file)) for file in (RECORDS, later)])
    assert result.stdout == render_html(records, None, history)
    assert "<summary>Change over time</summary>" in result.stdout


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        (["--format", "html", "--table", "growth"], ["--table", "--format"]),
        (["--no-images", "--format", "json"], ["--no-images", "--format html"]),
        (["--dataset", "sample", "--format", "json"], ["--dataset", "--format html"]),
    ],
)
def test_options_that_exclude_each_other(options, facts):
    result = run(RECORDS, *options)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert [fact for fact in facts if fact not in line] == []
    assert result.stdout in ("", json.dumps({"error": line.removeprefix("Error: "), "code": "REQUEST_INVALID"}) + "\n")


def test_without_the_libraries_of_the_page_the_error_names_the_extra_to_install(monkeypatch):
    for module in [name for name in sys.modules if name.startswith("toolkit.report")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    result = run(RECORDS, "--format", "html")
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: jinja2 ")
    assert "pip install 'blip-toolkit[report]'" in line


def test_the_default_format_is_markdown():
    assert run(RECORDS).stdout == RENDERERS["md"](read_records(RECORDS))


def changed(document, path, value):
    *parents, last = path.split(".")
    target = document
    for name in parents:
        target = target[name]
    if value is None:
        del target[last]
    else:
        target[last] = value
    return document


@pytest.mark.parametrize(
    ("lines", "place", "facts"),
    [
        (lambda line: [], ": ", ["no records"]),
        (lambda line: [line, "{"], ":2: ", ["JSON"]),
        (lambda line: [line, ""], ":2: ", ["JSON"]),
        (lambda line: [line, line[:-40]], ":2: ", ["JSON"]),
        (lambda line: ["[]"], ":1: ", ["list"]),
        (lambda line: [json.dumps(changed(json.loads(line), "schema", 3))], ":1: ", ["schema 3", "update blip-toolkit"]),
        (lambda line: [json.dumps(changed(json.loads(line), "host.cores", None))], ":1: ", ["missing", "host.cores"]),
        (lambda line: [json.dumps(changed(json.loads(line), "host.cores", "8"))], ":1: ", ["host.cores", "int", "str"]),
        (
            lambda line: [line, json.dumps(changed(changed(json.loads(line), "repeat", 9), "host.cpu", "another"))],
            ": ",
            ["different runs", "host cpu", "'Example CPU'", "'another'"],
        ),
        (
            lambda line: [line, json.dumps(changed(changed(json.loads(line), "repeat", 9), "workload.num_beams", 3))],
            ": ",
            ["different runs", "workload num_beams", "1", "3"],
        ),
        (lambda line: [json.dumps(changed(json.loads(line), "times", None))], ":1: ", ["4 images"]),
    ],
)
def test_invalid_records_are_a_one_line_error(tmp_path, lines, place, facts):
    line = RECORDS.read_text(encoding="utf-8").splitlines()[0]
    file = tmp_path / "records.jsonl"
    file.write_text("".join(f"{text}\n" for text in lines(line)))
    result = run(file, "--format", "json")
    error = json.loads(result.stdout)
    assert (result.exit_code, error["code"], result.stderr) == (1, "RECORD_UNREADABLE", f"Error: {error['error']}\n")
    assert error["error"].startswith(f"{file}{place}")
    assert [fact for fact in facts if fact not in error["error"]] == []


def test_a_missing_file_is_a_one_line_error(tmp_path):
    result = run(tmp_path / "none.jsonl", "--format", "json")
    error = json.loads(result.stdout)
    assert (result.exit_code, error["code"], result.stderr) == (1, "RECORD_UNREADABLE", f"Error: {error['error']}\n")
    assert str(tmp_path / "none.jsonl") in error["error"]


def test_a_table_without_rows_is_a_one_line_error():
    result = run(RECORDS, "--table", "components", "--format", "json")
    error = json.loads(result.stdout)
    assert (result.exit_code, error["code"], result.stderr) == (1, "RECORD_UNREADABLE", f"Error: {error['error']}\n")
    assert "'components'" in error["error"]
