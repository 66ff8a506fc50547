"""Sweeps and their growth table: small records, with expected ratios and limits that were computed by hand."""

import csv
import io
import json
from dataclasses import replace
from typing import Any

import pytest

from runtimes.errors import RecordError
from tests.paths import GOLDEN
from tests.toolkit.stats.run_records import WORKLOAD, failed, image, quality, record
from toolkit.records.record import BASELINE
from toolkit.records.record_file import read_records
from toolkit.records.settings import setting_of, settings_of, sweep
from toolkit.stats.components import component_rows
from toolkit.stats.growth import KEYS, growth_rows
from toolkit.stats.rows import check_comparable, make_rows
from toolkit.tables.columns import GROWTH
from toolkit.tables.markdown import WIDTH
from toolkit.tables.render import RENDERERS, render_table

SPEED_ONLY = replace(WORKLOAD, images=8, metric_counter=None)


def swept(case, repeat, seconds, batch_size=1, threads=2, tokens=20, peak=100, loaded=60, encode=0.0):
    """Return a record of 8 images in equal batches; a batch takes `seconds`, of which `encode` is the encoder's time."""
    (work,) = sweep(SPEED_ONLY, [batch_size], [threads], [tokens])
    times = [replace(image(seconds), read_s=0.0, encode_s=encode)] * work.runs
    return replace(record(case, repeat, times, loaded_rss_bytes=loaded, peak_rss_bytes=peak), workload=work)


def growth(*records):
    return {(row["case"], row["parameter"], row["fixed"], row["value"]): row for row in growth_rows(records)}


def test_a_sweep_has_one_workload_per_combination():
    works = sweep(WORKLOAD, (1, 4), (2, 1), (None, 5))
    swept_values = [(work.batch_size, work.threads, work.forced_tokens, work.max_length) for work in works]
    assert swept_values == [(b, t, *length) for b in (1, 4) for t in (2, 1) for length in ((None, 20), (5, None))]
    assert all(replace(work, batch_size=1, threads=2, forced_tokens=None, min_length=0, max_length=20) == WORKLOAD for work in works)


@pytest.mark.parametrize(("images", "batch_size", "runs"), [(8, 1, 8), (8, 8, 1), (9, 4, 3), (3, 2, 2)])
def test_number_of_batches(images, batch_size, runs):
    assert replace(WORKLOAD, images=images, batch_size=batch_size).runs == runs


def test_labels_contain_only_what_differs():
    records = [swept("a", 0, 1.0, batch_size, tokens=tokens) for batch_size in (1, 2) for tokens in (5, None)]
    assert list(settings_of(records).values()) == ["b1 5tok", "b1 natural", "b2 5tok", "b2 natural"]
    assert list(settings_of(records[:2]).values()) == ["5tok", "natural"]
    assert list(settings_of([swept("a", 0, 1.0, threads=t) for t in (1, 2)]).values()) == ["t1", "t2"]
    assert list(settings_of([record("a", 0, [1.0])]).values()) == [""]
    assert setting_of(record("a", 0, [1.0])).tokens is None


def test_each_setting_is_compared_with_the_baseline_of_the_same_setting():
    records = [
        *(swept(BASELINE, 0, 4.0), swept("a", 0, 1.0)),
        *(swept(BASELINE, 0, 24.0, batch_size=8), swept("a", 0, 4.0, batch_size=8)),
        swept("a", 0, 0.5, batch_size=4),
    ]
    rows = {(row["case"], row["setting"]): row for row in make_rows(records)}
    assert list(rows) == [(BASELINE, "b1"), ("a", "b1"), (BASELINE, "b8"), ("a", "b8"), ("a", "b4")]
    assert [row["speedup"] for row in rows.values()] == [1.0, 4.0, 1.0, 6.0, None]
    assert [row["seconds_per_image"] for row in rows.values()] == [4.0, 1.0, 3.0, 0.5, 0.125]
    assert [row["images_per_second"] for row in rows.values()] == [0.25, 1.0, 1 / 3, 2.0, 8.0]
    assert [(row["batch_size"], row["threads"], row["forced_tokens"]) for row in rows.values()][2:] == [(8, 2, 20), (8, 2, 20), (4, 2, 20)]
    check_comparable(records, "records")


def test_the_time_of_a_batch_is_divided_among_its_captioned_images():
    """Of 3 images in batches of 2 the second cannot be read: the first image gets its batch's whole time, and so does the third."""
    work = replace(WORKLOAD, batch_size=2)
    second_failed = (quality(), replace(quality(), error="b.jpg: is empty"), quality())
    (row,) = make_rows([replace(record("a", 0, [1.0, 3.0], second_failed), workload=work)])
    assert (row["seconds_per_image_low"], row["images_per_second"]) == (2.0, 0.5)
    batch_failed = (*[replace(quality(), error="b.jpg: is empty")] * 2, quality())
    (row,) = make_rows([replace(record("a", 0, [1.0, 3.0], batch_failed), workload=work)])
    assert (row["seconds_per_image"], row["images_per_second"]) == (3.0, 1 / 3)


def test_growth_over_the_batch():
    """Limits: time does not grow. Of 100 bytes 40 are allocated after loading, so a batch of 8 may take 60 + 8 * 40 bytes."""
    rows = growth(*(swept("a", 0, seconds, size, peak=peak) for size, seconds, peak in ((8, 4.0, 200), (1, 1.0, 100), (2, 1.5, 110))))
    assert list(rows) == [("a", "batch", "t2 20tok", value) for value in (1, 2, 8)], "the smallest first"
    single, two, eight = rows.values()
    assert (single["seconds_ratio"], single["seconds_ratio_limit"], single["peak_rss_ratio"], single["exceeds"]) == (None, None, None, [])
    assert (two["seconds_per_image"], two["seconds_ratio"], two["seconds_ratio_limit"]) == (0.75, 0.75, 1.0)
    assert (eight["seconds_ratio"], eight["images_per_second"], eight["peak_rss_ratio"]) == (0.5, 2.0, 2.0)
    assert (two["peak_rss_ratio_limit"], eight["peak_rss_ratio_limit"]) == pytest.approx((1.4, 3.8))
    assert (two["exceeds"], eight["exceeds"]) == ([], [])


def test_growth_over_tokens():
    """Limit: 0.6 of 1 s is the encoder, so 20 tokens may take 0.6 + 4 * 0.4 s. Natural lengths are not part of the series."""
    rows = growth(*(swept("a", 0, seconds, tokens=tokens, encode=0.6) for tokens, seconds in ((5, 1.0), (20, 2.2), (None, 9.0), (40, 3.0))))
    assert [value for _, _, _, value in rows] == [5, 20, 40]
    assert {fixed for _, _, fixed, _ in rows} == {"b1 t2"}
    five, twenty, forty = rows.values()
    assert (twenty["seconds_ratio_limit"], forty["seconds_ratio_limit"]) == pytest.approx((2.2, 3.8))
    assert [row["exceeds"] for row in (five, twenty, forty)] == [[], [], []]


def test_a_ratio_above_its_limit_is_marked():
    records = [
        swept("a", 0, 1.0),
        swept("a", 0, 2.2, batch_size=2, peak=160),
        swept("a", 1, 1.0),
        swept("a", 1, 2.4, batch_size=2, peak=160),
    ]
    _, row = growth_rows(records)
    assert (row["seconds_ratio"], row["seconds_ratio_low"], row["seconds_ratio_high"]) == pytest.approx((1.15, 1.1, 1.2))
    assert row["exceeds"] == ["seconds", "peak_rss"]
    assert [column.cell(row) for column in GROWTH][4:] == ["1.15x > 1.00x ^", "0", "1.60x > 1.40x ^"]
    _, row = growth_rows([*records[:3], swept("a", 1, 2.0, batch_size=2, peak=140)])
    assert row["exceeds"] == [], "one repeat is within the limit"


def test_there_is_a_series_per_combination_of_the_other_fields():
    records = [swept("a", 0, 1.0, size, threads) for size in (1, 2) for threads in (1, 2)]
    keys = [("batch", "t1 20tok"), ("batch", "t2 20tok"), ("threads", "b1 20tok"), ("threads", "b2 20tok")]
    assert [(row["parameter"], row["fixed"]) for row in growth_rows(records)] == [key for key in keys for _ in range(2)]


def test_failed_records_have_no_growth():
    broken = replace(failed("a", 0, "out of memory"), workload=replace(SPEED_ONLY, batch_size=2))
    assert growth_rows([swept("a", 0, 1.0), broken]) == []
    assert growth_rows([record("a", 0, [1.0])]) == []


RECORDS = [
    swept(case, repeat, seconds * size, size, threads, tokens, peak=10**9 + 10**8 * size, loaded=10**9)
    for repeat in (0, 1)
    for size in (1, 8)
    for threads in (1, 2)
    for tokens in (5, None)
    for case, seconds in ((BASELINE, 2.0), ("onnx-int8-full", 1.0))
]


def test_the_report_of_a_sweep():
    text = RENDERERS["md"](RECORDS)
    tables = [part.splitlines() for part in text.split("\n\n") if part.startswith("|")]
    assert [len(table) for table in tables] == [18] * 5 + [34]
    assert tables[0][3].startswith("| onnx-int8-full b1 t1 5tok")
    assert max(len(line) for table in tables for line in table) <= WIDTH == 100
    assert "batch size 1 or 8, greedy search, 5 forced tokens or at most 20 tokens with [DEC], 1 or 2 threads" in text
    assert "b is the batch size" in text
    report = json.loads(RENDERERS["json"](RECORDS))
    assert report["growth"] == growth_rows(RECORDS)
    assert [row for row in report["growth"] if row["exceeds"]] == []


def test_the_growth_table_alone():
    rows = growth_rows(RECORDS)
    assert json.loads(render_table(RECORDS, "growth", "json")) == rows
    lines = list(csv.DictReader(io.StringIO(render_table(RECORDS, "growth", "csv"))))
    assert [list(line) for line in lines] == [list(KEYS)] * len(rows)
    assert [line["peak_rss_ratio_limit"] for line in lines] == [
        "" if r["seconds_ratio"] is None else str(r["peak_rss_ratio_limit"]) for r in rows
    ]
    assert render_table(RECORDS, "growth", "md").splitlines()[0].startswith("| case ")
    with pytest.raises(RecordError, match=r"'growth'.*batch"):
        render_table(RECORDS[:2], "growth", "md")


def test_the_growth_table_alone_lists_unstable_cases():
    records = [swept("a", repeat, 1.0 + repeat * (size == 1), batch_size=size) for size in (1, 2) for repeat in range(3)]
    text = render_table(records, "growth", "md")
    assert "\n\nUnstable (!):\n- a b1: repeats differ by 100%\n" in text
    assert [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")] == ["case", "a !", "a"]


def test_components():
    bytes_of = ({"encoder": 3_000_000, "decoder": 5_000_000, "manifest": 4_000}, {"weights": 9_000_000, "manifest": 5_000})
    records = [record(BASELINE, 0, [1.0])]
    for case, components in zip(("a", "b"), bytes_of, strict=True):
        made = record(case, 0, [1.0])
        records.append(replace(made, subject=replace(made.subject, components=components)))
    a = {"case": "a", "weights": None, "decoder": 5_000_000, "encoder": 3_000_000, "manifest": 4_000, "total": 8_004_000}
    b = {"case": "b", "weights": 9_000_000, "decoder": None, "encoder": None, "manifest": 5_000, "total": 9_005_000}
    assert json.loads(render_table(records, "components", "json")) == [a, b]
    assert render_table(records, "components", "csv").splitlines()[1] == "a,,5000000,3000000,4000,8004000"
    assert render_table(records, "components", "md").splitlines()[2:] == [
        "| a    | -          | 5.00       | 3.00       | 0.00        | 8.00     |",
        "| b    | 9.00       | -          | -          | 0.01        | 9.01     |",
    ]
    with pytest.raises(RecordError, match="'components'"):
        render_table(records[:1], "components", "md")


@pytest.mark.parametrize("name", ["base", "quality"])
def test_records_without_a_batch_size_have_batches_of_one(tmp_path, name):
    lines = (GOLDEN / "published" / "amd-epyc-vnni" / f"{name}.jsonl").read_text().splitlines()
    old = tmp_path / "old.jsonl"
    old.write_text("".join(f"{json.dumps(_before_sweeps(json.loads(line)))}\n" for line in lines))
    records = read_records(old)
    assert {(record.workload.batch_size, record.workload.runs == record.workload.images) for record in records} == {(1, True)}
    assert (growth_rows(records), component_rows(records)) == ([], [])


def _before_sweeps(record: dict[str, Any]) -> dict[str, Any]:
    """Remove the fields that records did not have before sweeps."""
    del record["workload"]["batch_size"]
    for name in ("limits", "arithmetic", "hash_s", "energy_j", "throttled_s", "measured_at", "commit"):
        record.pop(name, None)
    if record["subject"]:
        del record["subject"]["components"]
    return record
