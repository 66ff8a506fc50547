"""Images per second by processes, threads and batch: all images are captioned, and a case that fails has an error."""

import csv
import io
import json
from dataclasses import replace

import pytest

from runtimes.errors import RecordError
from tests.toolkit.stats.run_records import HOST, WORKLOAD
from toolkit.bench.runner import plan
from toolkit.bench.throughput import Shares, measure_throughput, settings
from toolkit.datasets import load_dataset
from toolkit.records.throughput import ThroughputRecord, read_throughput, write_throughput
from toolkit.tables.throughput import RENDERERS, throughput_rows

RECORD = ThroughputRecord(
    case="onnx-int8", repeat=0, host=HOST, dataset="drawn", images=20, forced_tokens=None, processes=2, threads=1, batch_size=1, seconds=2.0
)


def test_settings_share_the_cores():
    assert settings(4, (1, 2, 8), None, (1,)) == [Shares(processes=p, threads=t, batch_size=1) for p, t in ((1, 4), (2, 2), (8, 1))]
    assert [(each.processes, each.threads, each.batch_size) for each in settings(4, (2,), (1, 3), (1, 8))] == [
        (2, 1, 1),
        (2, 1, 8),
        (2, 3, 1),
        (2, 3, 8),
    ]


@pytest.mark.full
def test_every_image_of_a_job_is_captioned(tiny_artifacts, drawn_images, tmp_path):
    dataset = load_dataset(None, drawn_images[0].path.parent, 7)
    workload = replace(WORKLOAD, images=7, max_length=8, warmup=1, repeats=1)
    shares = [Shares(processes=1, threads=1, batch_size=3), Shares(processes=2, threads=1, batch_size=1)]
    counts = []
    cases = plan([tiny_artifacts["onnx-int8"]], None)
    records = list(measure_throughput(cases, dataset, workload, shares, lambda case, count: counts.append(count)))
    assert counts == [3, 3, 1, *[1] * 7]
    assert [(record.processes, record.batch_size, record.error) for record in records] == [(1, 3, None), (2, 1, None)]
    assert all(record.seconds > 0 and record.images == 7 for record in records)
    write_throughput(tmp_path / "records.jsonl", records)
    assert read_throughput(tmp_path / "records.jsonl") == records


@pytest.mark.full
def test_a_case_that_cannot_be_opened_is_a_record_with_an_error(tiny_artifacts, drawn_images):
    dataset = load_dataset(None, drawn_images[0].path.parent, 2)
    (case,) = plan([tiny_artifacts["onnx-int8"]], None)
    case = replace(case, artifact=replace(case.artifact, path=case.artifact.path.with_name("gone")))
    workload = replace(WORKLOAD, images=2, repeats=1)
    (record,) = measure_throughput([case], dataset, workload, [Shares(processes=2, threads=1, batch_size=1)], lambda case, count: None)
    assert record.seconds is None
    assert "gone" in record.error


def test_rows_and_tables():
    slow, other = replace(RECORD, repeat=1, seconds=4.0), replace(RECORD, processes=1, threads=2, seconds=5.0, pss_bytes=100_000_000)
    failed = replace(RECORD, case="openvino-int8", seconds=None, error="no memory")
    rows = throughput_rows([RECORD, other, slow, failed])
    figures = [(row["case"], row["processes"], row["images_per_s"], row["images_per_s_low"], row["images_per_s_high"]) for row in rows]
    assert figures == [("onnx-int8", 2, 7.5, 5.0, 10.0), ("onnx-int8", 1, 4.0, 4.0, 4.0), ("openvino-int8", 2, None, None, None)]
    text = RENDERERS["md"]([RECORD, other, slow, failed])
    assert "7.50 [5.00, 10.00] *" in text
    assert "- openvino-int8: no memory" in text
    parsed = list(csv.DictReader(io.StringIO(RENDERERS["csv"]([RECORD, other]))))
    assert [(row["images_per_s"], row["pss_bytes"]) for row in parsed] == [("10.0", ""), ("4.0", "100000000")]
    assert len(json.loads(RENDERERS["json"]([RECORD, other]))["records"]) == 2


def test_invalid_records(tmp_path):
    (tmp_path / "records.jsonl").write_text('{"case": "x"}\n')
    with pytest.raises(RecordError, match=r"records.jsonl:1"):
        read_throughput(tmp_path / "records.jsonl")
    with pytest.raises(RecordError):
        read_throughput(tmp_path / "none.jsonl")
