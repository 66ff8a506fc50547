"""Which runs may be compared, and which cases are paired."""

from dataclasses import replace

import pytest

from runtimes.errors import RecordError, RequestError
from tests.toolkit.stats.run_records import HOST, WORKLOAD, failed, record
from tests.toolkit.stats.test_growth import swept
from toolkit.compare.pairing import AllowedDifferences, BenchRun, check_comparable_runs, pair_up
from toolkit.records.record import BASELINE

NONE_ALLOWED = AllowedDifferences()


def run(*records, name="a.jsonl"):
    return BenchRun(name=name, records=records)


A = run(record(BASELINE, 0, [4.0]), record("int8", 0, [1.0]))


def changed(**changes):
    return run(*(replace(record, **changes) for record in A.records), name="b.jsonl")


def other_checkpoint():
    records = [replace(record, subject=replace(record.subject, checkpoint_sha256="d" * 64)) for record in A.records]
    return run(*records, name="b.jsonl")


@pytest.mark.parametrize(
    ("b", "difference", "option"),
    [
        (changed(host=replace(HOST, cpu="two")), "host cpu is 'one' and 'two'", "hosts"),
        (changed(host=replace(HOST, cores=4)), "host cores is 2 and 4", "hosts"),
        (
            changed(workload=replace(WORKLOAD, dataset_sha256="1" * 64)),
            f"workload dataset_sha256 is {'0' * 12} and {'1' * 12}",
            "workloads",
        ),
        (changed(workload=replace(WORKLOAD, num_beams=3)), "workload num_beams is 1 and 3", "workloads"),
        (changed(workload=replace(WORKLOAD, prompt="a")), "workload prompt is None and 'a'", "workloads"),
        (other_checkpoint(), f"checkpoint sha256 is {'c' * 12} and {'d' * 12}", "checkpoints"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_runs_that_differ_are_refused_unless_an_option_allows_it(b, difference, option):
    with pytest.raises(RecordError) as raised:
        check_comparable_runs(A, b, NONE_ALLOWED)
    assert str(raised.value).startswith(f"a.jsonl and b.jsonl: {difference}; ")
    assert f"--allow-different-{option}" in str(raised.value)
    assert check_comparable_runs(A, b, AllowedDifferences(**{option: True})) is None
    others = {"hosts", "workloads", "checkpoints"} - {option}
    with pytest.raises(RecordError):
        check_comparable_runs(A, b, AllowedDifferences(**dict.fromkeys(others, True)))


def test_versions_and_repeats_may_differ():
    b = changed(host=replace(HOST, python="3.12.1"), workload=replace(WORKLOAD, repeats=9), versions={"torch": "3"})
    assert check_comparable_runs(A, b, NONE_ALLOWED) is None


def names(paired):
    return [(pair.case, pair.name_in_b, pair.setting, pair.problem) for pair in paired]


def test_every_case_of_a_has_its_line():
    b = run(record(BASELINE, 0, [4.0]), failed("int8", 0, "out of memory"), record("int4", 0, [1.0]))
    a = run(*A.records, record("int4", 0, [1.0]), record("gone", 0, [1.0]))
    assert names(pair_up(a, b, (), NONE_ALLOWED)) == [
        (BASELINE, BASELINE, "", None),
        ("int8", "int8", "", "failed in B: out of memory"),
        ("int4", "int4", "", None),
        ("gone", "gone", "", "not in B"),
    ]


def test_one_case_against_another():
    b = run(record("int4", 0, [1.0]), name="b.jsonl")
    (paired,) = pair_up(A, b, [("int8", "int4")], NONE_ALLOWED)
    assert (paired.pair.a.row["case"], paired.pair.b.row["case"]) == ("int8", "int4")
    with pytest.raises(RequestError, match=r"b\.jsonl .*'int8'.*int4"):
        pair_up(A, b, [("int8", "int8")], NONE_ALLOWED)
    with pytest.raises(RequestError, match=r"a\.jsonl .*'int2'.*hf-fp32, int8"):
        pair_up(A, b, [("int2", "int4")], NONE_ALLOWED)


def test_settings_that_both_ran_are_compared():
    a = run(*(swept("int8", 0, 1.0, size, tokens=tokens) for size in (1, 2) for tokens in (5, None)))
    b = run(*(swept("int8", 0, 1.0, size, tokens=tokens) for size in (2, 4) for tokens in (5, None)), name="b.jsonl")
    assert [line.setting for line in pair_up(a, b, (), NONE_ALLOWED)] == ["b2 5tok", "b2 natural"]


def test_single_settings_that_differ_are_another_workload():
    a, b = run(swept("int8", 0, 1.0, threads=1)), run(swept("int8", 0, 1.0, threads=2), name="b.jsonl")
    with pytest.raises(RecordError) as raised:
        pair_up(a, b, (), NONE_ALLOWED)
    assert str(raised.value).startswith("a.jsonl and b.jsonl: no setting in common: b1 t1 20tok and b1 t2 20tok; ")
    assert "--allow-different-workloads" in str(raised.value)
    (paired,) = pair_up(a, b, (), AllowedDifferences(workloads=True))
    assert (paired.pair.a.row["threads"], paired.pair.b.row["threads"]) == (1, 2)


def test_captions_of_another_length_are_another_workload():
    b = changed(workload=replace(WORKLOAD, max_length=30))
    with pytest.raises(RecordError, match=r"20 .*30"):
        pair_up(A, b, (), NONE_ALLOWED)
