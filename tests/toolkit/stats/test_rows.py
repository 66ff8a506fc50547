"""Rows of a report: small records, with expected figures that were computed by hand."""

import math
from dataclasses import replace
from itertools import product
from statistics import pstdev

import pytest

from runtimes.errors import RecordError
from tests.toolkit.stats.run_records import HOST, WORKLOAD, failed, image, quality, record, rows_of, unscored
from toolkit.records.record import BASELINE, Arithmetic, MachineLimits
from toolkit.stats.rows import KEYS, check_comparable, make_rows

STABLE_KEYS = (
    "case runtime seconds_per_image seconds_per_image_p90 images_per_second load_seconds first_caption_seconds encode_seconds step_seconds "
    "tokens_per_image peak_rss_bytes loaded_rss_bytes cpu_seconds_per_image artifact_bytes bleu4 cider rouge_l drift "
    "exact_match speedup size_ratio peak_rss_ratio bleu4_change bleu4_change_low bleu4_change_high cider_change cider_change_low "
    "cider_change_high recipe_sha256 error"
)
"""Keys that programs depend on, in this order."""


def test_rows_start_with_the_stable_keys():
    stable = STABLE_KEYS.split()
    assert list(KEYS[: len(stable)]) == stable
    assert len(set(KEYS)) == len(KEYS)
    assert [tuple(row) for row in make_rows([record("a", 0, [1.0]), failed("b", 0, "no")])] == [KEYS, KEYS]


def test_times_are_pooled_over_images_and_repeats():
    row = rows_of(
        record(
            "onnx-int8",
            0,
            [image(0.5, 0.25, (0.1, 0.3)), image(1.0, 0.5, (0.2,)), image(1.5, 0.75)],
            [quality(tokens=3), quality(tokens=2), quality(tokens=1)],
            import_s=4.0,
            load_s=0.5,
            first_caption_s=2.0,
            cpu_s=6.0,
            loaded_rss_bytes=200,
            peak_rss_bytes=300,
        ),
        record(
            "onnx-int8",
            1,
            [image(0.8, 0.5, (0.4, 0.5)), image(1.6, 0.5), image(2.4, 1.0)],
            import_s=2.0,
            load_s=0.7,
            first_caption_s=3.0,
            cpu_s=9.0,
            loaded_rss_bytes=230,
            peak_rss_bytes=421,
        ),
    )["onnx-int8"]
    # pooled: 0.5 0.8 1.0 1.5 1.6 2.4
    of_captions = KEYS[: KEYS.index("text_seconds")]
    assert {
        key: row[key] for key in of_captions if key.endswith(("seconds", "_image", "_p90", "_second", "_bytes", "_low", "_high"))
    } == pytest.approx(
        {
            "seconds_per_image": 1.25,
            "seconds_per_image_p90": 2.0,  # 0.9 * 5 steps: halfway between 1.6 and 2.4
            "seconds_per_image_low": 1.0,
            "seconds_per_image_high": 1.6,
            "images_per_second": 6 / 7.8,
            "tokens_per_second": 5 / 1.5,
            "import_seconds": 3.0,
            "load_seconds": 0.6,
            "first_caption_seconds": 2.5,
            "startup_seconds": 6.1,  # 4 + 0.5 + 2 and 2 + 0.7 + 3
            "hash_seconds": None,
            "read_seconds": 0.0125,
            "encode_seconds": 0.5,
            "first_token_seconds": 0.125,
            "step_seconds": 0.3,
            "tokens_per_image": 2.0,
            "loaded_rss_bytes": 215,
            "peak_rss_bytes": 360,
            "peak_gpu_bytes": None,
            "cpu_seconds_per_image": 2.5,
            "artifact_bytes": 1000,
            "disk_bytes": 500,
            **dict.fromkeys(("speedup_low", "speedup_high", "bleu4_change_low", "bleu4_change_high", "cider_change_low")),
            "joules_per_image": None,
            **dict.fromkeys(("energy_change_low", "energy_change_high")),
            **dict.fromkeys(("token_bytes", "encode_limit_seconds", "token_limit_seconds")),
            **dict.fromkeys(("cider_change_high", "rouge_l_change_low", "rouge_l_change_high", "drift_low", "drift_high")),
            **dict.fromkeys(("kl_low", "kl_high", "exact_match_low", "exact_match_high")),
        }
    )
    assert [type(row[key]) for key in ("peak_rss_bytes", "loaded_rss_bytes")] == [int, int]


def test_limits_and_their_share_of_the_measured_time():
    measured = record("onnx-int8", 0, [image(1.0, 0.5, (0.02, 0.02))])
    limits = MachineLimits(threads=2, bytes_per_s=20e9, float_macs_per_s=50e9, int8_macs_per_s=200e9, library="onnxruntime")
    work = Arithmetic(encode_float_macs=5 * 10**9, encode_int8_macs=30 * 10**9, token_weight_bytes=90_000_000, token_cross_bytes=10_000_000)
    row = rows_of(replace(measured, limits=limits, arithmetic=work))["onnx-int8"]
    figures = {key: row[key] for key in KEYS if key.startswith(("encode_limit", "token_limit", "encode_macs", "token_bytes"))}
    assert figures == pytest.approx(
        {
            "encode_macs": 35e9,
            "encode_limit_seconds": 0.25,
            "encode_limit_share": 0.5,
            "token_bytes": 100_000_000,
            "token_limit_seconds": 0.005,
            "token_limit_share": 0.25,
        }
    )
    unreliable = replace(limits, bandwidth_problem="two measurements differ by 23%")
    row = rows_of(replace(measured, limits=unreliable, arithmetic=work))["onnx-int8"]
    assert (row["encode_limit_share"], row["token_limit_seconds"], row["token_limit_share"]) == (
        pytest.approx(0.5),
        pytest.approx(0.005),
        None,
    )


def test_a_speed_up_is_the_median_of_the_ratios_of_the_repeats():
    rows = rows_of(
        record(BASELINE, 0, [1.0, 2.0, 3.0], artifact_bytes=1000, peak_rss_bytes=800, loaded_rss_bytes=400),
        record("fast", 0, [0.5, 1.0, 1.5], artifact_bytes=250, peak_rss_bytes=300, loaded_rss_bytes=100),
        record(BASELINE, 1, [2.0, 4.0, 6.0], artifact_bytes=1000, peak_rss_bytes=1000, loaded_rss_bytes=400),
        record("fast", 1, [0.8, 1.6, 2.4], artifact_bytes=250, peak_rss_bytes=420, loaded_rss_bytes=300),
        record(BASELINE, 2, [1.0, 3.0, 6.0], artifact_bytes=1000, peak_rss_bytes=900, loaded_rss_bytes=400),
        record("fast", 2, [1.0, 1.5, 2.4], artifact_bytes=250, peak_rss_bytes=360, loaded_rss_bytes=200),
    )
    fast, base = rows["fast"], rows[BASELINE]
    # medians of the repeats: 2, 4, 3 against 1, 1.6, 1.5
    assert [fast[key] for key in ("speedup", "speedup_low", "speedup_high")] == pytest.approx([2.0, 2.0, 2.5])
    assert [fast[key] for key in ("size_ratio", "peak_rss_ratio", "loaded_rss_ratio")] == pytest.approx([0.25, 0.4, 0.5])
    assert [base[key] for key in ("speedup", "speedup_low", "speedup_high", "size_ratio", "peak_rss_ratio", "loaded_rss_ratio")] == [1] * 6


def test_energy_is_per_caption_and_compared_within_a_repeat():
    rows = rows_of(
        record(BASELINE, 0, [1.0, 1.0], energy_j=40.0),
        record("case", 0, [1.0, 1.0], energy_j=10.0),
        record(BASELINE, 1, [1.0, 1.0], energy_j=60.0),
        record("case", 1, [1.0, 1.0], energy_j=18.0),
        record("dark", 1, [1.0, 1.0]),
    )
    case = rows["case"]
    assert (rows[BASELINE]["joules_per_image"], case["joules_per_image"], rows["dark"]["joules_per_image"]) == (25.0, 7.0, None)
    assert [case[f"energy_change{end}"] for end in ("", "_low", "_high")] == pytest.approx([-0.725, -0.75, -0.7])
    assert (rows[BASELINE]["energy_change"], rows["dark"]["energy_change"]) == (0.0, None)


def test_a_repeat_whose_baseline_failed_has_no_ratio():
    rows = rows_of(
        failed(BASELINE, 0, "no"), record("fast", 0, [9.0]), record(BASELINE, 1, [3.0]), record("fast", 1, [1.0]), record("late", 2, [1.0])
    )
    assert [rows["fast"][key] for key in ("speedup", "speedup_low", "speedup_high")] == [3.0, 3.0, 3.0]
    assert (rows["late"]["speedup"], rows["late"]["size_ratio"]) == (None, 1.0)


def test_scores_and_their_changes():
    base = [quality("a", cider=1.0, rouge_l=0.5, log_probability=-10.0), quality("b", cider=2.0, rouge_l=0.25, log_probability=-20.0)]
    base += [quality("c", cider=3.0, rouge_l=0.75, log_probability=-30.0)]
    half = {"words": 4, "closest": 8, "matches": (4, 3, 2, 1)}  # all n-grams match; half as long as the closest reference
    captions = [
        quality("a", cider=1.0, rouge_l=0.5, log_probability=-11.0, **half),
        quality("B", cider=2.0, rouge_l=0.25, log_probability=-20.0, **half),
    ]
    captions += [quality("c", cider=2.4, rouge_l=0.45, log_probability=-32.0, **half)]
    rows = rows_of(record(BASELINE, 0, [1.0] * 3, base), record("case", 0, [1.0] * 3, captions))
    row = rows["case"]
    penalty = math.exp(1 - 8 / 4)
    assert [row[f"bleu{n}"] for n in (1, 2, 3, 4)] == pytest.approx([penalty] * 4)
    assert [row["bleu4_change"], row["bleu4_change_low"], row["bleu4_change_high"]] == pytest.approx([penalty - 1] * 3)
    assert [row["cider"], row["rouge_l"]] == pytest.approx([1.8, 0.4])
    assert [row["cider_change"], row["rouge_l_change"]] == pytest.approx([-0.1, -0.2])
    # three images have a t interval: 4.303 times the standard deviation of the 27 equally likely draws, times sqrt(3 / 2)
    draws = list(product(range(3), repeat=3))
    ciders = [sum((1.0, 2.0, 2.4)[i] for i in draw) / sum((1.0, 2.0, 3.0)[i] for i in draw) for draw in draws]
    drifts = [sum((1, 0, 2)[i] for i in draw) / 30 for draw in draws]
    for key, middle, values in (("cider_change", -0.1, ciders), ("drift", 0.1, drifts)):
        half = 4.303 * pstdev(values) * math.sqrt(3 / 2)
        assert [row[f"{key}_low"], row[f"{key}_high"]] == pytest.approx([middle - half, middle + half], abs=0.05 * half)
    assert [row["exact_match"], row["exact_match_low"], row["exact_match_high"]] == pytest.approx([2 / 3, 0.208, 0.939], abs=1e-3)
    assert (row["verdict"], row["verdict_text"]) == (None, "no verdict (3 of 20 images)")
    assert [rows[BASELINE][key] for key in ("bleu4", "cider", "rouge_l", "drift", "exact_match", "bleu4_change")] == pytest.approx(
        [1, 2, 0.5, 0, 1, 0]
    )


def test_a_baseline_score_of_zero_has_no_relative_change():
    base = [quality(matches=(4, 2, 1, 0), cider=0.0)] * 3
    row = rows_of(record(BASELINE, 0, [1.0] * 3, base), record("case", 0, [1.0] * 3, [quality()] * 3))["case"]
    assert [row[key] for key in ("bleu4", "cider")] == pytest.approx([1.0, 1.0])
    assert [row[f"{name}_change{end}"] for name in ("bleu4", "cider") for end in ("", "_low", "_high")] == [None] * 6
    assert row["verdict_text"] == "no verdict (3 of 20 images)"


def test_without_references_only_agreement_is_computed():
    base, captions = [unscored("a"), unscored("b"), unscored("c")], [unscored("a"), unscored("B"), unscored("C")]
    row = rows_of(record(BASELINE, 0, [1.0] * 3, base), record("case", 0, [1.0] * 3, captions))["case"]
    assert (row["exact_match"], row["tokens_per_image"]) == (pytest.approx(1 / 3), 4.0)
    assert [
        key for key in ("bleu1", "bleu4", "cider", "rouge_l", "drift", "bleu4_change", "drift_low", "verdict_text") if row[key] is not None
    ] == []


def test_without_a_baseline_nothing_is_compared():
    row = rows_of(record("case", 0, [1.0, 2.0, 4.0], [quality()] * 3))["case"]
    assert [row[key] for key in ("seconds_per_image", "bleu4", "cider")] == pytest.approx([2.0, 1.0, 1.0])
    compared = [key for key in KEYS if key.endswith(("_ratio", "_change", "_low", "_high")) and not key.startswith("seconds")]
    compared += ["drift", "exact_match", "speedup", "verdict_text", "kl"]
    assert [key for key in compared if row[key] is not None] == []


def test_a_failed_case_is_a_row_with_its_error():
    rows = rows_of(record(BASELINE, 0, [1.0]), failed("broken", 0, "first"), record(BASELINE, 1, [1.0]), failed("broken", 1, "second"))
    assert rows["broken"] == {**dict.fromkeys(KEYS), "case": "broken", "error": "first", "batch_size": 1, "threads": 2}
    assert rows[BASELINE]["error"] is None


def test_a_case_with_a_failed_repeat_has_the_figures_of_the_others():
    rows = rows_of(
        record(BASELINE, 0, [2.0]),
        failed("shaky", 0, "killed"),
        record(BASELINE, 1, [2.0]),
        record("shaky", 1, [1.0]),
        record("shaky", 2, [1.0]),
    )
    assert (rows["shaky"]["error"], rows["shaky"]["seconds_per_image"], rows["shaky"]["speedup"]) == ("1 of 3 repeats: killed", 1.0, 2.0)
    assert (rows["shaky"]["exact_match"], rows["shaky"]["bleu4"]) == (None, None), "only the first repeat stores captions"


def test_other_cases_have_figures_if_the_baseline_failed():
    rows = rows_of(failed(BASELINE, 0, "no memory"), record("case", 0, [1.0], [quality()]))
    assert (rows[BASELINE]["error"], rows["case"]["seconds_per_image"], rows["case"]["speedup"]) == ("no memory", 1.0, None)


def test_unreadable_images_are_not_counted():
    bad = unscored("", error="bad.jpg: is empty")
    base = [quality("a", cider=1.0), bad, quality("c", cider=3.0)]
    captions = [quality("a", cider=1.0), bad, quality("x", cider=2.0)]
    rows = rows_of(
        record(BASELINE, 0, [2.0, 0.001, 4.0], base),
        record("case", 0, [1.0, 0.001, 2.0], captions, cpu_s=6.0),
        record(BASELINE, 1, [2.0, 0.001, 4.0]),
        record("case", 1, [1.0, 0.001, 2.0], cpu_s=6.0),
    )
    row = rows["case"]
    assert [row[key] for key in ("seconds_per_image", "images_per_second", "speedup", "cpu_seconds_per_image")] == pytest.approx(
        [1.5, 2 / 3, 2.0, 3.0]
    )
    assert [row[key] for key in ("exact_match", "cider", "cider_change", "tokens_per_image")] == pytest.approx([0.5, 1.5, -0.25, 3.0])
    assert row["seconds_per_image_p90"] == pytest.approx(2.0)


def test_rows_have_the_order_in_which_cases_ran():
    records = [record("b", 0, [1.0]), record("a", 0, [1.0]), record("b", 1, [1.0]), failed("c", 0, "no"), record("a", 1, [1.0])]
    assert [row["case"] for row in make_rows(records)] == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"host": replace(HOST, cpu="two")}, "host cpu is 'one' and 'two'"),
        ({"host": replace(HOST, cores=4)}, "host cores is 2 and 4"),
        ({"host": replace(HOST, python="3.12.0")}, "host python is '3.11.9' and '3.12.0'"),
        ({"workload": replace(WORKLOAD, dataset_sha256="1" * 64)}, f"workload dataset_sha256 is '{'0' * 64}' and '{'1' * 64}'"),
        ({"workload": replace(WORKLOAD, num_beams=3)}, "workload num_beams is 1 and 3"),
        ({"workload": replace(WORKLOAD, max_length=30)}, "captions of 0 to 20 and of 0 to 30 tokens"),
        ({"workload": replace(WORKLOAD, prompt="a")}, "workload prompt is None and 'a'"),
        ({"workload": replace(WORKLOAD, metric_counter=None)}, "workload metric_counter is 'own' and None"),
        ({"host": replace(HOST, cores=4), "workload": replace(WORKLOAD, threads=1)}, "host cores is 2 and 4"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_records_of_different_runs_cannot_share_a_table(changes, difference):
    records = [record("a", 0, [1.0]), record("b", 0, [1.0]), replace(record("a", 1, [1.0]), **changes)]
    with pytest.raises(RecordError) as raised:
        check_comparable(records, "r.jsonl")
    assert str(raised.value) == f"r.jsonl: contains records of different runs: {difference}"


def test_records_of_one_run_can_share_a_table():
    assert check_comparable([record("a", 0, [1.0]), failed("b", 0, "no"), record("a", 1, [1.0])], "r.jsonl") is None
