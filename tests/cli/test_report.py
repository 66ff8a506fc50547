"""`toolkit report`: records in, the table of the golden files out; bad records are one line."""

import json
import sys
from dataclasses import replace

import pytest
from click.testing import CliRunner

from tests.paths import GOLDEN
from toolkit.cli import main
from toolkit.compare.history import history_sheet
from toolkit.compare.pairing import Run
from toolkit.records.record import read_records, write_records
from toolkit.report.page import render_html
from toolkit.tables.render import RENDERERS

RECORDS = GOLDEN / "records.jsonl"


def run(*arguments):
    return CliRunner().invoke(main, ["report", *map(str, arguments)], prog_name="toolkit")


@pytest.mark.parametrize("layout", RENDERERS)
def test_prints_what_the_renderer_makes(layout):
    result = run(RECORDS, "--format", layout)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == RENDERERS[layout](read_records(RECORDS))


def test_writes_a_page(tmp_path):
    file = tmp_path / "report.html"
    result = run(RECORDS, "--format", "html", "--no-images", "-o", file)
    assert (result.exit_code, result.output) == (0, "")
    assert file.read_text(encoding="utf-8") == render_html(read_records(RECORDS))
    again = run(RECORDS, "--format", "html", "--no-images", "-o", file)
    assert (again.exit_code, again.stderr) == (1, f"Error: {file}: exists already; nothing was changed. Use --overwrite to replace it.\n")
    assert run(RECORDS, "-o", file, "--overwrite").exit_code == 0
    assert file.read_text(encoding="utf-8") == RENDERERS["md"](read_records(RECORDS))


def test_a_page_of_several_files_is_the_newest_ones_with_their_history(tmp_path):
    later = tmp_path / "later.jsonl"
    records = [replace(record, measured_at="2026-11-24T12:00:00Z") for record in read_records(RECORDS)]
    write_records(later, records)
    result = run(later, RECORDS, "--format", "html", "--no-images")
    assert (result.exit_code, result.stderr) == (0, "")
    history = history_sheet([Run(name=str(file), records=read_records(file)) for file in (RECORDS, later)])
    assert result.stdout == render_html(records, None, history)
    assert "<summary>Change over time</summary>" in result.stdout


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--format", "html", "--table", "growth"], "a page has all tables: --table is of the other formats"),
        (["--no-images"], "--dataset, --images and --no-images are of a page: --format html"),
        (["--dataset", "sample"], "--dataset, --images and --no-images are of a page: --format html"),
    ],
)
def test_options_that_do_not_go_together(options, error):
    result = run(RECORDS, *options)
    assert (result.exit_code, result.output) == (1, f"Error: {error}\n")


def test_a_page_without_its_libraries_says_what_to_install(monkeypatch):
    for module in [name for name in sys.modules if name.startswith("toolkit.report")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    result = run(RECORDS, "--format", "html")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: jinja2 is needed for a page: pip install 'blip-toolkit[report]'\n"


def test_the_default_is_for_people():
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
    ("lines", "error"),
    [
        (lambda line: [], ": contains no records"),
        (lambda line: [line, "{"], ":2: not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1))"),
        (lambda line: [line, ""], ":2: not JSON (Expecting value: line 1 column 1 (char 0))"),
        (lambda line: [line, line[:-40]], ":2: not JSON ("),
        (lambda line: ["[]"], ":1: document: expected an object, got list"),
        (
            lambda line: [json.dumps(changed(json.loads(line), "schema", 3))],
            ":1: has record schema 3, but this toolkit reads 2; update blip-toolkit",
        ),
        (lambda line: [json.dumps(changed(json.loads(line), "host.cores", None))], ":1: missing host.cores"),
        (lambda line: [json.dumps(changed(json.loads(line), "host.cores", "8"))], ":1: host.cores: expected int, got str"),
        (
            lambda line: [line, json.dumps(changed(json.loads(line), "host.cpu", "another"))],
            ": contains records of different runs: host cpu is 'Example CPU' and 'another'",
        ),
        (
            lambda line: [line, json.dumps(changed(json.loads(line), "workload.num_beams", 3))],
            ": contains records of different runs: workload num_beams is 1 and 3",
        ),
        (lambda line: [json.dumps(changed(json.loads(line), "times", None))], ":1: has neither an error nor the measurements of 4 images"),
    ],
)
def test_bad_records_are_one_line(tmp_path, lines, error):
    line = RECORDS.read_text(encoding="utf-8").splitlines()[0]
    file = tmp_path / "records.jsonl"
    file.write_text("".join(f"{one}\n" for one in lines(line)))
    result = run(file)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines() == [result.stderr.rstrip("\n")]
    assert result.stderr.startswith(f"Error: {file}{error}")


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    result = run(tmp_path / "none.jsonl")
    assert (result.exit_code, result.output) == (1, f"Error: {tmp_path / 'none.jsonl'}: cannot be read: No such file or directory\n")


def test_a_table_alone_that_the_records_do_not_have_is_one_line():
    result = run(RECORDS, "--table", "components")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: these records: have no data for the table 'components': measure artifacts again with this toolkit\n"
