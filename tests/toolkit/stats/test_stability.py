"""Instability of times: records on both sides of each rule."""

from dataclasses import replace

import pytest

from tests.toolkit.stats.run_records import WORKLOAD, image, record
from toolkit.stats.stability import instability_reasons

WORK = replace(WORKLOAD, images=6)


def run(repeat, totals=(1.0,) * 6, encode=(0.5,) * 6, throttled_s=None):
    times = [replace(image(total), encode_s=encode_s) for total, encode_s in zip(totals, encode, strict=True)]
    return replace(record("a", repeat, times, throttled_s=throttled_s), workload=WORK)


def runs(*medians, **others):
    return [run(repeat, (seconds,) * 6, **others) for repeat, seconds in enumerate(medians)]


@pytest.mark.parametrize(
    ("records", "reasons"),
    [
        (runs(1.0, 1.0, 1.0), []),
        (runs(1.0, 1.0), ["2 of 3 repeats"]),
        ([replace(record, workload=replace(WORK, images=3)) for record in runs(1.0, 1.0, 1.0)], ["9 of 10 batches"]),
        ([replace(record, workload=replace(WORK, batch_size=2)) for record in runs(1.0, 1.0, 1.0)], ["9 of 10 batches"]),
        (runs(1.0), ["1 of 3 repeats", "6 of 10 batches"]),
        (runs(1.0, 1.04, 1.09), []),
        (runs(1.0, 1.25, 0.9), ["repeats differ by 35%"]),
        ([run(repeat, (1.0, 1.0, 1.0, 1.0, 1.0, 9.0)) for repeat in range(3)], []),  # a long caption is not noise
        (runs(1.0, 1.0, 1.0, encode=(0.6, 0.6, 0.5, 0.5, 0.5, 0.5)), ["the encoder was 17% faster for the last images than for the first"]),
        (runs(1.0, 1.0, 1.0, encode=(0.5, 0.5, 0.5, 0.5, 0.6, 0.6)), ["the encoder was 20% slower for the last images than for the first"]),
        (runs(1.0, 1.0, 1.0, encode=(0.54, 0.54, 0.5, 0.5, 0.5, 0.5)), []),
        ([*runs(1.0, 1.0), run(2, encode=(0.9, 0.9, 0.5, 0.5, 0.5, 0.5))], []),  # only one process of three warms up
        (runs(1.0, 1.0, 1.0, throttled_s=0.2), []),
        (runs(1.0, 1.0, 1.0, throttled_s=0.6), ["throttled by heat or a CPU quota for 10% of the time"]),
        (runs(1.0, 1.0, 1.0, throttled_s=0.0), []),
        (runs(1.0, 1.0, 1.0, encode=(0.0,) * 6), []),
    ],
)
def test_rules(records, reasons):
    assert instability_reasons(records) == reasons
