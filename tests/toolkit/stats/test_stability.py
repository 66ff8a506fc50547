"""Doubts about times: records made by hand on each side of each rule."""

from dataclasses import replace

import pytest

from tests.toolkit.stats.test_rows import WORKLOAD, image, record
from toolkit.stats.stability import doubts

WORK = replace(WORKLOAD, images=6)


def run(repeat, totals=(1.0,) * 6, encode=(0.5,) * 6, throttled_s=None):
    times = [replace(image(total), encode_s=encode_s) for total, encode_s in zip(totals, encode, strict=True)]
    return replace(record("a", repeat, times, throttled_s=throttled_s), workload=WORK)


def runs(*medians, **others):
    return [run(repeat, (seconds,) * 6, **others) for repeat, seconds in enumerate(medians)]


@pytest.mark.parametrize(
    ("records", "said"),
    [
        (runs(1.0, 1.0, 1.0), []),
        (runs(1.0, 1.0), ["2 of 3 repeats"]),
        ([replace(one, workload=replace(WORK, images=3)) for one in runs(1.0, 1.0, 1.0)], ["9 of 10 runs of the model"]),
        ([replace(one, workload=replace(WORK, batch_size=2)) for one in runs(1.0, 1.0, 1.0)], ["9 of 10 runs of the model"]),
        (runs(1.0), ["1 of 3 repeats", "6 of 10 runs of the model"]),
        (runs(1.0, 1.04, 1.09), []),
        (runs(1.0, 1.25, 0.9), ["repeats 35% apart"]),
        ([run(repeat, (1.0, 1.0, 1.0, 1.0, 1.0, 9.0)) for repeat in range(3)], []),  # one long caption is no noise
        (runs(1.0, 1.0, 1.0, encode=(0.6, 0.6, 0.5, 0.5, 0.5, 0.5)), ["the last images' encoder took 17% less than the first ones'"]),
        (runs(1.0, 1.0, 1.0, encode=(0.5, 0.5, 0.5, 0.5, 0.6, 0.6)), ["the last images' encoder took 20% more than the first ones'"]),
        (runs(1.0, 1.0, 1.0, encode=(0.54, 0.54, 0.5, 0.5, 0.5, 0.5)), []),
        ([*runs(1.0, 1.0), run(2, encode=(0.9, 0.9, 0.5, 0.5, 0.5, 0.5))], []),  # in one process of three
        (runs(1.0, 1.0, 1.0, throttled_s=0.2), []),
        (runs(1.0, 1.0, 1.0, throttled_s=0.6), ["heat or a CPU quota held cores back for 10% of the time"]),
        (runs(1.0, 1.0, 1.0, throttled_s=0.0), []),
        (runs(1.0, 1.0, 1.0, encode=(0.0,) * 6), []),
    ],
)
def test_rules(records, said):
    assert doubts(records) == said
