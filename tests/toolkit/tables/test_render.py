"""Whole reports of hand-made records, compared with golden files, which `python -m tests.golden` writes."""

import csv
import io
import json
import re
from dataclasses import replace

import pytest

from tests.paths import GOLDEN
from toolkit.records.record import Arithmetic, MachineLimits
from toolkit.records.record_file import read_records
from toolkit.stats.rows import KEYS, make_rows
from toolkit.tables.render import RENDERERS, SCHEMA

RECORDS = read_records(GOLDEN / "records.jsonl")
NUMBER = re.compile(r"(-?\d+\.\d+(?:e[-+]?\d+)?)")
"""Fractions are compared with a tolerance: libraries may differ in the last bit of a logarithm."""


@pytest.mark.parametrize("layout", RENDERERS)
def test_equals_the_golden_file(layout):
    made = NUMBER.split(RENDERERS[layout](RECORDS))
    golden = NUMBER.split((GOLDEN / f"report.{layout}").read_text(encoding="utf-8"))
    assert made[::2] == golden[::2], "everything but the fractions"
    assert [float(number) for number in made[1::2]] == pytest.approx([float(number) for number in golden[1::2]], rel=1e-12, abs=0)


def test_markdown_equals_the_golden_file_exactly():
    assert RENDERERS["md"](RECORDS) == (GOLDEN / "report.md").read_text(encoding="utf-8")


def test_csv_and_json_have_the_same_rows():
    rows = json.loads(RENDERERS["json"](RECORDS))["rows"]
    lines = list(csv.DictReader(io.StringIO(RENDERERS["csv"](RECORDS))))
    assert [list(row) for row in rows] == [list(KEYS)] * 4
    assert lines == [{key: "" if value is None else str(value) for key, value in row.items()} for row in rows]
    assert rows == make_rows(RECORDS)


def test_json_has_machine_dataset_and_workload():
    report = json.loads(RENDERERS["json"](RECORDS))
    assert list(report) == [
        "schema",
        "host",
        "dataset",
        "workload",
        "versions",
        "commit",
        "measured_at",
        "limits",
        "rows",
        "growth",
        "components",
    ]
    assert report["schema"] == SCHEMA == 1
    assert report["limits"] == []
    assert report["dataset"] == {"name": "example", "sha256": "d0" * 32, "images": 4}
    assert report["host"]["cpu"] == "Example CPU"
    assert report["workload"]["repeats"] == 2
    assert report["versions"] == {"transformers": "4.57.1", "torch": "2.10.0", "numpy": "2.3.0", "onnxruntime": "1.24.3"}


def test_all_tables_are_valid_and_aligned():
    tables = [part.splitlines() for part in RENDERERS["md"](RECORDS).split("\n\n") if part.startswith("|")]
    assert [table[0].split("|")[2].strip() for table in tables] == [
        "s/image",
        "CPU s/image",
        "drift nat/token",
        "KL from FP32, nat/token",
        "BLEU-4, change %",
        "disk MB",
        "read ms",
    ]
    for table in tables:
        assert {line.count("|") for line in table} == {table[0].count("|")}
        assert {len(line) for line in table} == {len(table[0])}, "columns line up in a terminal"


def test_limits_have_a_table_and_a_line_where_they_were_measured():
    limits = MachineLimits(threads=2, bytes_per_s=20e9, float_macs_per_s=50e9, int8_macs_per_s=200e9, library="onnxruntime")
    work = Arithmetic(encode_float_macs=5 * 10**9, encode_int8_macs=4 * 10**9, token_weight_bytes=90_000_000, token_cross_bytes=10_000_000)
    measured = [replace(record, limits=limits, arithmetic=work) if record.case == "onnx-int8" else record for record in RECORDS]
    text = RENDERERS["md"](measured)
    table = next(part for part in text.split("\n\n") if " GMAC " in part).splitlines()
    cells = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in table}
    assert cells["case"] == ["GMAC", "encode ms", "limit ms", "share", "token MB", "token ms", "limit ms", "share"]
    assert cells["onnx-int8"] == ["9.0", "250.0", "120.0", "48%", "100.0", "62.50", "5.00", "8%"]
    assert cells["hf-fp32"][2:4] == ["-", "-"]
    assert "2 threads read 20.0 GB/s, and onnxruntime computes 50 GMAC/s in FP32 and 200 GMAC/s in INT8." in text
    assert json.loads(RENDERERS["json"](measured))["limits"][0]["bytes_per_s"] == 20e9
    unreliable = [
        replace(record, limits=replace(limits, bandwidth_problem="too small")) if record.limits else record for record in measured
    ]
    text = RENDERERS["md"](unreliable)
    assert "(not reproducible: too small; " in text
    row = next(line for part in text.split("\n\n") if " GMAC " in part for line in part.splitlines() if "onnx-int8" in line)
    assert [cell.strip() for cell in row.split("|")[-3:-1]] == ["5.00", "-"]


def test_runs_on_a_gpu_have_columns_of_the_device_and_its_memory():
    on_gpu = [
        replace(
            record, workload=replace(record.workload, device="cuda"), host=replace(record.host, gpu="NVIDIA L4"), peak_gpu_bytes=400_000_000
        )
        for record in RECORDS
    ]
    text = RENDERERS["md"](on_gpu)
    (head,) = [line for line in text.splitlines() if "GPU MB" in line]
    row = next(line for line in text.splitlines()[text.splitlines().index(head) :] if line.startswith("| onnx-int8"))
    cells = dict(zip(*([cell.strip() for cell in line.split("|")[1:-1]] for line in (head, row)), strict=True))
    assert (cells["device"], cells["GPU MB"]) == ("cuda", "400")
    assert "NVIDIA L4" in text
    assert "GPU MB" not in RENDERERS["md"](RECORDS)


def test_failures_are_listed_with_their_errors():
    failed = RENDERERS["md"](RECORDS).split("Failed:\n")[1].split("\n\n")[0].splitlines()
    assert failed == [
        "- pytorch-int8: 1 of 2 repeats: its process was ended by SIGKILL (out of memory?)",
        "- onnx-fp16: not run: it is meant for a CUDA GPU and there is none here",
    ]


def test_a_report_of_failures_only_has_no_table():
    text = RENDERERS["md"]([record for record in RECORDS if record.case == "onnx-fp16"])
    assert text.startswith(
        "Failed:\n- onnx-fp16: not run: it is meant for a CUDA GPU and there is none here\n\nHost: Example CPU (avx2, vnni)"
    )
    assert "|" not in text


def test_without_references_agreement_replaces_scores():
    bare = {"matches": None, "totals": None, "hypothesis_length": None, "reference_length": None, "cider": None, "rouge_l": None}
    records = [
        replace(
            record,
            workload=replace(record.workload, metric_counter=None),
            quality=tuple(replace(image, **bare, log_probability=None, scored_tokens=None) for image in record.quality),
        )
        for record in RECORDS
    ]
    text = RENDERERS["md"](records)
    assert text.split("\n\n")[2].splitlines() == [
        "| case         | same captions    |",
        "|--------------|------------------|",
        "| hf-fp32      | 100%             |",
        "| onnx-int8    | 50% [15%, 85%]   |",
        "| pytorch-int8 | 100% [51%, 100%] |",
    ]
    assert "BLEU" not in text


def test_without_a_baseline_nothing_is_compared():
    text = RENDERERS["md"]([record for record in RECORDS if record.case == "onnx-int8"])
    rows = [part.splitlines()[2].strip("| ").split("|") for part in text.split("\n\n") if part.startswith("|")]
    assert [[cell.strip() for cell in row[1:]] for row in rows] == [
        ["0.500", "-", "0.750", "2.00", "6.2"],
        ["0.81", "150", "325", "50"],
        ["-", "-", "-"],
        ["-", "-"],
        ["0.573", "1.125", "0.625"],
        ["50", "0.25", "0.12", "-", "0.500", "0.88"],
        ["62.5", "250.0", "62.50", "62.50"],
    ]


def test_the_best_figure_of_a_column_is_marked():
    marked = [line for line in RENDERERS["md"](RECORDS).splitlines() if " * " in line and line.startswith("|")]
    assert {line.split("|")[1].strip(" !") for line in marked} == {"onnx-int8"}, "it is the best throughout"
    alone = RENDERERS["md"]([record for record in RECORDS if record.case == "onnx-int8"])
    assert " * " not in alone


def test_unstable_cases_are_marked_and_listed_with_reasons():
    text = RENDERERS["md"](RECORDS)
    names = [line.split("|")[1].strip() for line in text.split("\n\n")[0].splitlines()[2:]]
    assert names == ["hf-fp32 !", "onnx-int8 !", "pytorch-int8 !"]
    assert "Unstable (!):\n- hf-fp32: 2 of 3 repeats; 8 of 10 batches; repeats differ by 18%; " in text
    assert [row["unstable"] for row in make_rows(RECORDS)][3] is None, "a case that failed has no times"


def test_energy_is_a_column_where_it_was_measured():
    text = RENDERERS["md"](RECORDS)
    assert "\nEnergy: not measured" in text
    assert "J/image" not in text
    energies = {"hf-fp32": 100.0, "onnx-int8": 25.0}
    measured = [replace(record, energy_j=energies.get(record.case)) for record in RECORDS]
    cost = RENDERERS["md"](measured).split("\n\n")[1].splitlines()
    assert [line.split("|")[-2].strip() for line in cost] == ["J/image", "-" * 15, "25.00", "6.25 (-75%) *", "not measured"]
    assert "\nEnergy: of the processor packages (RAPL)" in RENDERERS["md"](measured)


def test_footnotes_have_the_time_and_the_commit():
    dated = [replace(record, measured_at="2026-11-24T09:30:00Z", commit="0123456789abcdef" + "0" * 24 + "+dirty") for record in RECORDS]
    assert "\nMeasured: 2026-11-24T09:30:00Z, commit 0123456+dirty.\n" in RENDERERS["md"](dated)
    installed = [replace(record, commit=None) for record in dated]
    assert "\nMeasured: 2026-11-24T09:30:00Z, installed toolkit.\n" in RENDERERS["md"](installed)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "batch size 1, greedy search, at most 20 tokens with [DEC], 2 threads"),
        ({"num_beams": 3}, "batch size 1, beam search with 3 beams, at most 20 tokens with [DEC], 2 threads"),
        ({"forced_tokens": 20, "min_length": None, "max_length": None}, "batch size 1, greedy search, 20 forced tokens, 2 threads"),
    ],
    ids=str,
)
def test_footnotes_have_the_workload(changes, words):
    records = [replace(record, workload=replace(record.workload, **changes)) for record in RECORDS]
    assert words in RENDERERS["md"](records)
