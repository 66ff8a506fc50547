"""`make perf-gate`: a slower `onnx-int8` fails, and a machine without committed records is not compared."""

from dataclasses import replace

import pytest

from tests.perf_gate import NAME, check
from tests.toolkit.stats.run_records import failed, record
from toolkit.records.record import BASELINE
from toolkit.records.record_file import write_records


def runs(seconds, base=4.0):
    cases = {BASELINE: base, "onnx-int8": seconds, "onnx-int4": seconds / 2}
    return [record(case, repeat, [total] * 3) for repeat in range(2) for case, total in cases.items()]


@pytest.fixture
def published(tmp_path):
    """Committed records of two machines; a caption of onnx-int8 takes a quarter of the baseline's time on the second one."""
    other = [replace(each, host=replace(each.host, cpu="another")) for each in runs(4.0)]
    for name, records in (("first", other), ("second", runs(1.0))):
        (tmp_path / name).mkdir()
        write_records(tmp_path / name / NAME, records)
    return tmp_path


@pytest.mark.parametrize(
    ("seconds", "base", "code"), [(1.0, 4.0, 0), (1.09, 4.0, 0), (1.11, 4.0, 1), (2.0, 8.0, 0), (0.5, 4.0, 0), (1.0, 3.5, 1)]
)
def test_the_ratio_to_the_baseline_is_compared(published, tmp_path, capsys, seconds, base, code):
    write_records(tmp_path / "new.jsonl", runs(seconds, base))
    assert check(tmp_path / "new.jsonl", published) == code
    lines = capsys.readouterr().out.splitlines()
    assert "second" in lines[0]
    assert [line.split()[:4] for line in lines[1:]] == [
        ["onnx-int8", f"{base / seconds:.2f}x,", "committed", "4.00x:"],
        ["onnx-int4", f"{2 * base / seconds:.2f}x,", "committed", "8.00x:"],
    ]


@pytest.mark.parametrize("change", ["cpu", "cores", "threads"])
def test_other_machines_and_workloads_are_not_compared(published, tmp_path, capsys, change):
    def changed(each):
        if change == "threads":
            return replace(each, workload=replace(each.workload, threads=1))
        return replace(each, host=replace(each.host, **{change: {"cpu": "third", "cores": 64}[change]}))

    write_records(tmp_path / "new.jsonl", list(map(changed, runs(9.0))))
    assert check(tmp_path / "new.jsonl", published) == 0
    assert capsys.readouterr().out.startswith("not compared: ")


def test_a_case_that_failed_is_a_failure(published, tmp_path, capsys):
    write_records(tmp_path / "new.jsonl", [record(BASELINE, 0, [4.0] * 3), failed("onnx-int8", 0, "broken")])
    assert check(tmp_path / "new.jsonl", published) == 1
    assert "onnx-int8" in capsys.readouterr().out
