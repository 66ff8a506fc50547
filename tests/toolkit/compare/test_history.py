"""Changes over time, for runs of several days in any order."""

import csv
import io
import json
from dataclasses import replace

import pytest

from runtimes.errors import RequestError
from tests.golden.__main__ import before_and_after
from tests.toolkit.stats.run_records import HOST, failed, record
from toolkit.compare.history import KEYS, RENDERERS, history_rows, history_sheet, newest, render_history
from toolkit.compare.pairing import BenchRun
from toolkit.records.record import BASELINE


def run(name, *records, day=None, host=HOST, commit=None):
    moment = None if day is None else f"2026-11-{day}T10:00:00Z"
    return BenchRun(name=name, records=[replace(record, measured_at=moment, commit=commit, host=host) for record in records])


def both(baseline, artifact, size=1000):
    return record(BASELINE, 0, [baseline]), record("int8", 0, [artifact], artifact_bytes=size)


def rows_of(*runs):
    return [row for row in history_rows(runs) if row["case"] == "int8"]


def test_changes_are_relative_to_the_previous_run():
    runs = (run("new", *both(4.0, 0.8, 900), day=24), run("old", *both(4.0, 1.0), day=20), run("mid", *both(8.0, 1.0), day=22))
    rows = rows_of(*runs)
    assert [(row["file"], row["compared_with"]) for row in rows] == [("old", None), ("mid", "old"), ("new", "mid")]
    assert [row["speedup"] for row in rows] == [4.0, 8.0, 5.0]
    assert [row["speedup_change"] for row in rows] == [None, 1.0, -0.375]
    assert [row["seconds_per_image_change"] for row in rows] == [None, 0.0, pytest.approx(-0.2)]
    assert [row["artifact_bytes_change"] for row in rows] == [None, 0.0, pytest.approx(-0.1)]


def test_runs_without_a_time_come_first_in_the_given_order():
    runs = (run("dated", *both(4.0, 1.0), day=20), run("one", *both(4.0, 1.0)), run("two", *both(4.0, 1.0)))
    assert [row["file"] for row in rows_of(*runs)] == ["one", "two", "dated"]


def test_a_run_of_another_machine_is_skipped():
    other = run("other", *both(2.0, 0.5), day=22, host=replace(HOST, cpu="two"))
    rows = rows_of(run("first", *both(4.0, 1.0), day=20), other, run("last", *both(4.0, 2.0), day=24))
    assert [(row["compared_with"], row["seconds_per_image_change"]) for row in rows] == [(None, None), (None, None), ("first", 1.0)]
    assert [row["not_compared_reason"] for row in rows] == [None, "host cpu is 'one' and 'two'", "host cpu is 'two' and 'one'"]


def test_a_failed_case_is_skipped():
    broken = run("broken", record(BASELINE, 0, [4.0]), failed("int8", 0, "out of memory"), day=22)
    rows = rows_of(run("first", *both(4.0, 1.0), day=20), broken, run("last", *both(4.0, 2.0), day=24))
    assert [(row["compared_with"], row["error"]) for row in rows] == [(None, None), (None, "out of memory"), ("first", None)]
    assert "Failed:\n- int8, broken: out of memory" in RENDERERS["md"]([broken])


def test_layouts_have_the_same_rows():
    runs = before_and_after()
    rows = history_rows(runs)
    assert json.loads(RENDERERS["json"](runs)) == rows
    lines = list(csv.DictReader(io.StringIO(RENDERERS["csv"](runs))))
    assert lines == [{key: "" if row[key] is None else str(row[key]) for key in KEYS} for row in rows]


def test_a_single_table_and_a_repeated_file_are_refused():
    before, after = before_and_after()
    with pytest.raises(RequestError, match="--table"):
        render_history([before, after], "md", "growth")
    with pytest.raises(RequestError, match="twice"):
        render_history([before, before], "md", None)


def test_the_newest_run_is_the_one_measured_last():
    before, after = before_and_after()
    assert newest([after, before]).name == newest([before, after]).name == after.name
    assert [row["file"] for row in history_sheet([after, before]).rows][:2] == [before.name, after.name]
