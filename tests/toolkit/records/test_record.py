"""Benchmark records: the round trip, errors with line numbers, and a file that is complete at any time."""

import dataclasses
import json
import os
import subprocess
import sys

import pytest

from runtimes.artifact import json_dataclass
from runtimes.errors import OutputError, RecordError
from tests.paths import GOLDEN, ROOT
from toolkit.records.record import SCHEMA, Arithmetic, HostFacts, ImageQuality, ImageTimes, MachineLimits, Record, Subject, Workload
from toolkit.records.record_file import read_records, write_records

RECORDS = GOLDEN / "records.jsonl"

HOST = HostFacts(cpu="Ein Prozessor™", cpu_features=("avx2", "vnni"), cores=2, memory_bytes=None, system="Linux x86_64", python="3.12.1")
WORKLOAD = Workload(
    dataset="sample",
    dataset_sha256="ab" * 32,
    images=2,
    prompt="a picture of",
    num_beams=3,
    min_length=None,
    max_length=None,
    forced_tokens=5,
    limit=2,
    dataset_path="../data/captions.json",
    images_path="images",
    checkpoint="models/mine",
    threads=2,
    warmup=1,
    repeats=3,
    metric_counter="nltk",
)
SUBJECT = Subject(
    runtime="ort",
    checkpoint_sha256="c" * 64,
    recipe="onnx-int8",
    recipe_sha256="d" * 64,
    manifest_digest="e" * 64,
    artifact_bytes=1_000,
    disk_bytes=1_000,
    approximate=False,
    drift_limit_nat=0.02,
)
FULL = Record(
    schema=SCHEMA,
    case="onnx-int8",
    repeat=2,
    host=HOST,
    workload=WORKLOAD,
    subject=SUBJECT,
    versions={"onnxruntime": "1.24.3"},
    providers=("CPUExecutionProvider",),
    import_s=0.1,
    load_s=0.2,
    first_caption_s=0.3,
    cpu_s=0.4,
    loaded_rss_bytes=5,
    peak_rss_bytes=6,
    peak_gpu_bytes=7,
    warmup_s=(0.3, 0.25),
    times=(
        ImageTimes(total_s=0.1 + 0.2, read_s=1e-9, encode_s=0.0, first_token_s=1 / 3, token_s=()),
        ImageTimes(total_s=2.0, read_s=0.5, encode_s=0.25, first_token_s=0.125, token_s=(0.0625, 0.03125)),
    ),
    quality=(
        ImageQuality(
            file="a.jpg",
            caption="ein „Hund“\tauf dem Bett",
            tokens=5,
            matches=(4, 3, 2, 1),
            totals=(5, 4, 3, 2),
            hypothesis_length=5,
            reference_length=6,
            cider=1.1,
            rouge_l=0.7,
            log_probability=-12.5,
            scored_tokens=30,
        ),
        ImageQuality(file="b.jpg", caption="", tokens=0, error="b.jpg: is empty"),
    ),
    limits=MachineLimits(
        threads=2,
        bytes_per_s=2e10,
        float_macs_per_s=5e10,
        int8_macs_per_s=1e11,
        library="onnxruntime",
        bandwidth_problem="too small a buffer",
    ),
    arithmetic=Arithmetic(encode_float_macs=1, encode_int8_macs=2, token_weight_bytes=3, token_cross_bytes=4),
    hash_s=0.05,
    energy_j=12.5,
    throttled_s=0.0,
    measured_at="2026-11-24T09:30:00Z",
    commit="f" * 40,
)
FAILED = Record(
    schema=SCHEMA,
    case="onnx-fp16",
    repeat=0,
    host=HOST,
    workload=WORKLOAD,
    subject=None,
    versions={},
    providers=(),
    error="not run",
)


def line(record, **changes):
    return json.dumps({**json_dataclass.dump(record), **changes})


def test_round_trip(tmp_path):
    write_records(tmp_path / "r.jsonl", [FULL, FAILED])
    assert read_records(tmp_path / "r.jsonl") == [FULL, FAILED]


def test_the_full_record_has_no_default_values():
    left = [field.name for field in dataclasses.fields(Record) if getattr(FULL, field.name) == field.default]
    assert left == ["error"], "otherwise the round trip does not test every field"


def test_a_file_has_one_line_per_record_in_utf8(tmp_path):
    write_records(tmp_path / "r.jsonl", [FULL, FAILED])
    content = (tmp_path / "r.jsonl").read_bytes()
    assert content.count(b"\n") == 2
    assert content.endswith(b"\n")
    assert "„Hund“".encode() in content
    assert [list(json.loads(line)) for line in content.splitlines()] == [sorted(vars(FULL))] * 2


def test_reading_and_writing_keeps_the_golden_records(tmp_path):
    """Fields that are newer than these records are null; the task is that of all older records."""
    write_records(tmp_path / "r.jsonl", read_records(RECORDS))
    golden = [json.loads(line) for line in RECORDS.read_bytes().splitlines()]
    kinds = (Record, HostFacts, Workload, Subject, ImageTimes, ImageQuality)
    newer, of_host, of_workload, of_subject, of_times, of_image = (
        {field.name: None for field in dataclasses.fields(kind)} for kind in kinds
    )
    expected = [
        {
            **newer,
            **record,
            "host": {**of_host, **record["host"]},
            "workload": {**of_workload, "task": "caption", **record["workload"]},
            "subject": record["subject"] and {**of_subject, **record["subject"]},
            "times": [{**of_times, **times} for times in record["times"]],
            "quality": [{**of_image, **image} for image in record["quality"]],
        }
        for record in golden
    ]
    assert [json.loads(line) for line in (tmp_path / "r.jsonl").read_bytes().splitlines()] == expected


def part(field, *index, **changes):
    """Return a part of FULL with changes, as JSON values."""
    value = json_dataclass.dump(FULL)[field]
    for position in index:
        value = value[position]
    return {**value, **changes}


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        ("", "not JSON (Expecting value: line 1 column 1 (char 0))"),
        ("{", "not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1))"),
        ("[" * 100_000, "not JSON ("),
        ("null", "document: expected an object, got NoneType"),
        (line(FULL, schema=SCHEMA + 1), f"has record schema {SCHEMA + 1}, but this toolkit reads {SCHEMA}; update"),
        (line(FULL, schema=SCHEMA + 1, colour="red"), f"has record schema {SCHEMA + 1}, but this toolkit reads {SCHEMA}; update"),
        (line(FULL, schema=1), f"has record schema 1, but this toolkit reads {SCHEMA}; measure again"),
        (line(FULL, colour="red"), "unknown record field(s) colour; known: schema, case, repeat, host, workload, subject, "),
        (line(FULL, repeat="1"), "repeat: expected int, got str"),
        (line(FULL, cpu_s=True), "cpu_s: expected float, got bool"),
        (line(FULL, times=[{"total_s": 1.0}]), "missing times[0].encode_s, times[0].first_token_s, times[0].read_s, times[0].token_s"),
        (line(FULL, warmup_s=[1, "2"]), "warmup_s[1]: expected float, got str"),
        (line(FULL, workload=part("workload", batch_size=0)), "workload: batch_size must be 1 or more"),
        (line(FULL, workload=part("workload", forced_tokens=0)), "workload: forced_tokens must be 1 or more"),
        (line(FULL, limits=part("limits", bytes_per_s=0)), "limits: a rate must be positive"),
        (line(FULL, times=[part("times", 0, total_s=0.0), part("times", 1)]), "times[0]: total_s must be positive"),
        (line(FULL, quality=[part("quality", 0, totals=None), part("quality", 1)]), "quality[0]: matches, totals and both lengths"),
        (line(FULL, quality=[part("quality", 0, error="no")] * 2), "has neither an error nor the measurements of 2 images"),
        (line(FULL, times=[]), "has neither an error nor the measurements of 2 images"),
        (line(FULL, subject=None), "has neither an error nor the measurements of 2 images"),
        (line(FULL, quality=json_dataclass.dump(FULL)["quality"][:1]), "has neither an error nor the measurements of 2 images"),
    ],
    ids=lambda value: value[:60] if isinstance(value, str) else None,
)
def test_an_invalid_line_is_an_error_with_its_number(tmp_path, broken, problem):
    file = tmp_path / "r.jsonl"
    file.write_text(f"{line(FULL)}\n{line(FAILED)}\n{broken}\n", encoding="utf-8")
    with pytest.raises(RecordError) as raised:
        read_records(file)
    assert str(raised.value).startswith(f"{file}:3: {problem}")
    assert str(raised.value).splitlines() == [str(raised.value)]


def test_a_truncated_file_is_an_error(tmp_path):
    write_records(tmp_path / "r.jsonl", [FULL, FAILED])
    content = (tmp_path / "r.jsonl").read_bytes()
    (tmp_path / "r.jsonl").write_bytes(content[:-20])
    with pytest.raises(RecordError, match=r"r\.jsonl:2: "):
        read_records(tmp_path / "r.jsonl")


def test_bytes_that_are_not_utf8_are_an_error(tmp_path):
    (tmp_path / "r.jsonl").write_bytes(line(FAILED).encode() + b"\n\xff\xfe{}\n")
    with pytest.raises(RecordError, match=r"r\.jsonl:2: "):
        read_records(tmp_path / "r.jsonl")


def test_the_file_is_readable_after_each_record(tmp_path):
    file, records = tmp_path / "r.jsonl", []
    for repeat in range(4):
        records.append(dataclasses.replace(FULL, repeat=repeat))
        write_records(file, records)
        assert read_records(file) == records
        assert [path.name for path in tmp_path.iterdir()] == ["r.jsonl"]


WRITE = """
import resource, sys
from pathlib import Path
from runtimes.errors import OutputError
from toolkit.records.record_file import read_records, write_records
file, golden = Path(sys.argv[1]), read_records(Path(sys.argv[2]))
write_records(file, golden[:1])
resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + 100,) * 2)
try:
    write_records(file, golden)
except OutputError as error:
    print(error)
"""


def test_a_record_that_is_there_twice_is_an_error(tmp_path):
    """Statistics would count its images twice."""
    write_records(tmp_path / "r.jsonl", [FULL, FAILED, FULL])
    with pytest.raises(RecordError, match=r"r\.jsonl:3: .* line 1"):
        read_records(tmp_path / "r.jsonl")


def test_a_failed_write_keeps_the_records_so_far(tmp_path):
    file = tmp_path / "r.jsonl"
    process = subprocess.run([sys.executable, "-c", WRITE, file, RECORDS], capture_output=True, text=True, check=True)
    assert process.stdout == f"{file}: cannot write: File too large. Nothing was changed.\n"
    assert read_records(file) == read_records(RECORDS)[:1]
    assert [path.name for path in tmp_path.iterdir()] == ["r.jsonl"]


def test_a_missing_folder_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match="No such file or directory"):
        write_records(tmp_path / "gone" / "r.jsonl", [FULL])


KILLED = """
import os, signal, sys, threading
from dataclasses import replace
from pathlib import Path
from toolkit.records.record_file import read_records, write_records
file, golden = Path(sys.argv[1]), read_records(Path(sys.argv[2]))
many = [replace(record, repeat=record.repeat + 10 * number) for number in range(20) for record in golden]
write_records(file, golden)
print(flush=True)
while True:
    write_records(file, many)
    write_records(file, golden)
"""


@pytest.mark.slow
def test_the_file_is_readable_if_the_writer_is_killed(tmp_path):
    file, golden = tmp_path / "r.jsonl", read_records(RECORDS)
    with subprocess.Popen([sys.executable, "-c", KILLED, file, RECORDS], stdout=subprocess.PIPE) as writer:
        writer.stdout.readline()
        lengths = [len(read_records(file)) for _ in range(20)]
        writer.kill()
    lengths.append(len(read_records(file)))
    assert set(lengths) <= {len(golden), 20 * len(golden)}
    assert os.access(file, os.R_OK)


@pytest.mark.parametrize(
    ("old", "new", "fact"),
    [
        (b'"a dog on a bed"', b'"\\ud800"', "not JSON"),
        (b'"import_s":4.0', b'"import_s":4.0,"import_s":1.0', "duplicate"),
        (b'"import_s":4.0', b'"import_s":-4.0', "import_s"),
        (b'"import_s":4.0', b'"import_s":NaN', "import_s"),
        (b'"import_s":4.0', b'"import_s":1e999', "import_s"),
        (b'"matches":[5,', b'"matches":[-5,', "matches"),
        (b'"hypothesis_length":5', b'"hypothesis_length":null', "lengths"),
        (b'"import_s":4.0', b'"import_s":' + b"[" * 100_000, "not JSON"),
    ],
)
def test_impossible_values_are_an_error(tmp_path, old, new, fact):
    content = (ROOT / "tests" / "golden" / "records.jsonl").read_bytes()
    assert old in content
    (tmp_path / "r.jsonl").write_bytes(content.replace(old, new, 1))
    with pytest.raises(RecordError) as caught:
        read_records(tmp_path / "r.jsonl")
    assert "r.jsonl:1: " in str(caught.value)
    assert fact in str(caught.value)
    assert str(caught.value).isprintable()
