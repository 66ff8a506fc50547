"""Changes between two runs: records and expected changes are written by hand."""

from dataclasses import replace

import numpy as np
import pytest

from exporters.gate.drift import drift_of_sums
from exporters.gate.intervals import Change, interval, paired_change
from tests.toolkit.stats.run_records import WORKLOAD, image, quality, record, unscored
from toolkit.compare.comparison import Compared, compare
from toolkit.compare.measures import MEASURES
from toolkit.compare.pairing import AllowedDifferences, BenchRun, pair_up
from toolkit.records.record import BASELINE

MEASURE_OF = {measure.key: measure for measure in MEASURES}


def run(*records):
    return BenchRun(name="run.jsonl", records=records)


def lines(a, b, names=(), allowed=AllowedDifferences()):  # noqa: B008 - frozen
    (paired,) = pair_up(a, b, names, allowed)
    return {change.measure.key: change for change in compare(paired.pair)}


def times(*seconds):
    return [image(total, encode_s=total / 2, token_s=(total / 8, total / 8)) for total in seconds]


A = run(*(record("int8", repeat, times(1.0, 2.0, 4.0), import_s=1.0, peak_rss_bytes=1000) for repeat in range(3)))


def test_times_sizes_and_rates():
    """B takes four fifths of A's time for each image and three quarters of its bytes."""
    b = run(*(record("int8", repeat, times(0.8, 1.6, 3.2), artifact_bytes=750, peak_rss_bytes=1500) for repeat in range(3)))
    changes = lines(A, b)
    assert (changes["seconds_per_image"].a, changes["seconds_per_image"].b) == (2.0, 1.6)
    expected = {
        "seconds_per_image": "faster by 20.0%",
        "seconds_per_image_p90": "faster by 20.0%",
        "images_per_second": "faster by 25.0%",
        "tokens_per_second": "faster by 25.0%",
        "encode_seconds": "faster by 20.0%",
        "first_token_seconds": "faster by 20.0%",
        "peak_rss_bytes": "larger by 50.0%",
        "artifact_bytes": "smaller by 25.0%",
        "startup_seconds": "the same",
        "speedup": "not measured",
        "joules_per_image": "not measured",
        "drift": "not measured",
    }
    assert {key: changes[key].text.split(" [")[0] for key in expected} == expected
    assert [changes["seconds_per_image"].change.low, changes["seconds_per_image"].change.high] == pytest.approx([-0.2, -0.2])
    assert changes["tokens_per_second"].a == pytest.approx(6 / 1.75)


def test_a_loop_in_one_graph_has_no_stages_to_compare():
    whole = [replace(image_times, encode_s=None, first_token_s=None, token_s=()) for image_times in times(0.8, 1.6, 3.2)]
    changes = lines(A, run(*(record("int8", repeat, whole) for repeat in range(3))))
    assert changes["seconds_per_image"].text.startswith("faster by 20.0%")
    assert {changes[key].text for key in ("encode_seconds", "first_token_seconds", "tokens_per_second")} == {"not measured"}


def test_noise_is_no_difference():
    noisy = [(1.0, 2.0, 4.0), (1.1, 2.2, 4.4), (0.9, 1.8, 3.6)]
    runs = [
        run(*(record("int8", repeat, times(*seconds)) for repeat, seconds in enumerate(order))) for order in (noisy, noisy[1:] + noisy[:1])
    ]
    line = lines(*runs)["seconds_per_image"]
    assert (line.change.change, line.clear) == (pytest.approx(0.0), False)
    assert line.text.startswith("cannot tell [-")
    assert line.change.low == pytest.approx(-line.change.high / (1 + line.change.high), abs=0.02), "as far down as up"


def test_quality_is_compared_on_the_same_images():
    before = [quality("a", cider=1.0, log_probability=-10.0), quality("b", cider=2.0, log_probability=-8.0), quality("c", cider=3.0)]
    after = [quality("a", cider=0.9, log_probability=-10.5), quality("x", cider=1.8, log_probability=-9.0), quality("c", cider=2.7)]
    a, b = (run(*(record("int8", repeat, times(1.0, 1.0, 1.0), scores) for repeat in range(2))) for scores in (before, after))
    changes = lines(a, b)
    assert changes["cider"].change.change == pytest.approx(-0.1)
    assert changes["cider"].text == "worse by 10.0% [10.0%, 10.0%]"
    expected = paired_change(np.array([0.9, 1.8, 2.7]), np.array([1.0, 2.0, 3.0]))
    assert changes["cider"].change == expected
    sums = np.array([[0.5, 10.0], [1.0, 10.0], [0.0, 10.0]])
    low, high = interval(sums, drift_of_sums)
    assert changes["drift"].change == Change(pytest.approx(0.05), low, high)
    assert changes["bleu4"].text == "the same"
    (paired,) = pair_up(a, b, (), AllowedDifferences())
    assert paired.pair.quality["exact_match"] == pytest.approx(2 / 3)


def test_a_drift_is_a_difference_between_the_two_runs():
    """Against its own FP32 each has a drift of its own; what changed is what B loses over A."""
    base = [quality(log_probability=-10.0)] * 3
    a, b = (
        run(record(BASELINE, 0, times(1.0, 1.0, 1.0), base), record("int8", 0, times(1.0, 1.0, 1.0), [quality(log_probability=loss)] * 3))
        for loss in (-10.2, -10.7)
    )
    line = lines(a, b, [("int8", "int8")])["drift"]
    assert (line.a, line.b) == (pytest.approx(0.02), pytest.approx(0.07))
    assert line.text.startswith("worse by 0.0500")
    assert (line.change.low, line.change.high) == (pytest.approx(0.05), pytest.approx(0.05))


def test_only_images_that_both_could_caption_count():
    bad = unscored("", error="bad.jpg: is empty")
    a = run(*(record("int8", repeat, times(1.0, 0.001, 9.0), [quality(), bad, quality()] if repeat == 0 else []) for repeat in range(2)))
    b = run(*(record("int8", repeat, times(2.0, 9.0, 0.001), [quality(), quality(), bad] if repeat == 0 else []) for repeat in range(2)))
    line = lines(a, b)["seconds_per_image"]
    assert line.change.change == pytest.approx(1.0), "the first image alone: from 1 s to 2 s"


def test_other_images_are_compared_by_time_alone():
    other = replace(WORKLOAD, dataset_sha256="1" * 64)
    b = run(*(replace(record("int8", repeat, times(1.0, 2.0, 4.0), [quality()] * 3), workload=other) for repeat in range(2)))
    a = run(*(record("int8", repeat, times(1.0, 2.0, 4.0), [quality()] * 3) for repeat in range(2)))
    changes = lines(a, b, allowed=AllowedDifferences(workloads=True))
    assert changes["seconds_per_image"].clear is False
    assert changes["bleu4"].text == "not compared"


def test_a_single_repeat_has_a_change_and_no_interval():
    line = lines(run(A.records[0]), run(record("int8", 0, times(2.0, 4.0, 8.0))))["seconds_per_image"]
    assert (line.text, line.clear) == ("slower by 100.0% (no interval)", None)


def test_energy_and_speed_up_are_of_repeats():
    a = run(*(record(case, r, times(s, s, s), energy_j=e) for r in range(2) for case, s, e in ((BASELINE, 4.0, 60.0), ("int8", 1.0, 30.0))))
    b = run(*(record(case, r, times(s, s, s), energy_j=e) for r in range(2) for case, s, e in ((BASELINE, 8.0, 60.0), ("int8", 1.0, 15.0))))
    changes = lines(a, b, [("int8", "int8")])
    assert (changes["speedup"].a, changes["speedup"].b, changes["speedup"].text) == (4.0, 8.0, "faster by 100.0%")
    assert (changes["joules_per_image"].a, changes["joules_per_image"].b, changes["joules_per_image"].text) == (10.0, 5.0, "less by 50.0%")


@pytest.mark.parametrize(
    ("key", "change", "text"),
    [
        ("seconds_per_image", Change(-0.12, -0.15, -0.09), "faster by 12.0% [9.0%, 15.0%]"),
        ("seconds_per_image", Change(0.12, 0.09, 0.15), "slower by 12.0% [9.0%, 15.0%]"),
        ("tokens_per_second", Change(0.12, 0.09, 0.15), "faster by 12.0% [9.0%, 15.0%]"),
        ("seconds_per_image", Change(0.01, -0.02, 0.04), "cannot tell [-2.0%, +4.0%]"),
        ("seconds_per_image", Change(0.0, -0.0004, 0.0), "cannot tell [+0.0%, +0.0%]"),
        ("seconds_per_image", Change(0.05, None, None), "slower by 5.0% (no interval)"),
        ("seconds_per_image", Change(0.0, None, None), "the same (no interval)"),
        ("artifact_bytes", Change(-0.74, -0.74, -0.74), "smaller by 74.0%"),
        ("artifact_bytes", Change(1e-7, 1e-7, 1e-7), "the same"),
        ("drift", Change(0.0034, 0.001, 0.006), "worse by 0.0034 [0.0010, 0.0060]"),
        ("drift", Change(-0.0034, -0.006, 0.001), "cannot tell [-0.0060, +0.0010]"),
        ("cider", Change(-0.067, -0.36, 0.35), "cannot tell [-36.0%, +35.0%]"),
        ("cider", Change(None, None, None), "not compared"),
    ],
)
def test_the_text_of_a_change(key, change, text):
    assert Compared(measure=MEASURE_OF[key], a=1.0, b=1.0, change=change).text == text
