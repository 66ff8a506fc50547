"""`ScheduleSearch`: every image has one row, and the chosen schedule is one that was measured."""

import logging
from itertools import islice

import pytest

from runtimes.host.facts import read_host
from runtimes.pool import calibration
from runtimes.pool.calibration import ScheduleSearch, in_batches
from runtimes.pool.job import CaptionJob, Item, Request

REQUEST = Request(
    prompt=None, num_beams=1, min_length=0, max_length=8, batch_size=1, max_pixels=None, reduce_large=False, strip_prompt=False, draft="off"
)


@pytest.fixture
def job(tiny_artifacts):
    settings = {"device": "cpu", "threads": None, "readers": 1, "log_level": logging.WARNING}
    return CaptionJob(artifact=str(tiny_artifacts["onnx-int8"]), request=REQUEST, **settings)


@pytest.fixture
def items(drawn_images):
    return [Item(str(drawn_images[number % 16].path), index=number) for number in range(700)]


@pytest.fixture
def hasty(monkeypatch):
    """Calibrate jobs of a second."""
    monkeypatch.setattr(calibration, "BUDGET_S", 0.5)
    monkeypatch.setattr(calibration, "WINDOW_SHARE", 0.05)
    monkeypatch.setattr(calibration, "SHORT_S", 0.0)


def captioned(calibration, items):
    """Return the schedules that were chosen, and the indices of the images in the order of their rows."""
    chosen, ready, indices = [], [], []
    for batch, rows in calibration.run(items, ready.append, chosen.append):
        assert [row["image"] for row in rows] == [item.name for item in batch]
        indices += [item.index for item in batch]
    assert ready
    return chosen, indices


def test_a_short_job_runs_in_one_process_without_a_choice(job, items):
    chosen, indices = captioned(ScheduleSearch(job, 40, raise_batch=True), items[:40])
    assert (chosen, indices) == ([], list(range(40)))


@pytest.mark.full
@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("raise_batch", [True, False])
def test_the_choice_of_a_long_job_is_a_measured_schedule(job, items, raise_batch, monkeypatch):
    monkeypatch.setattr(calibration, "BUDGET_S", 20.0)
    monkeypatch.setattr(calibration, "WINDOW_SHARE", 0.002)
    measured = ScheduleSearch(job, len(items), raise_batch=raise_batch)
    (chosen,), indices = captioned(measured, items)
    assert sorted(indices) == list(range(700))
    rates = {(each.processes, each.batch_size): rate for each, rate in measured._rates.items()}
    assert min(rates.values()) > 0
    assert max(rates.values()) <= calibration.GAIN * rates[chosen.processes, chosen.batch_size]
    cores = read_host().cores
    assert chosen.processes * chosen.threads <= cores
    assert {processes for processes, _ in rates} >= ({1, cores} if cores > 1 else {1})
    assert {size for _, size in rates} == ({1, calibration.RAISED_BATCH} if raise_batch else {1})
    assert "images/s" in chosen.reason


@pytest.mark.usefixtures("hasty")
def test_without_memory_for_a_second_process_there_is_one(job, items, monkeypatch):
    monkeypatch.setattr(calibration, "MEMORY_SHARE", 0.0)
    (chosen,), indices = captioned(ScheduleSearch(job, None, raise_batch=True), items[:200])
    assert (chosen.processes, chosen.batch_size, indices) == (1, 1, list(range(200)))
    assert "memory" in chosen.reason


def test_batches():
    assert [list(batch) for batch in in_batches(iter("abcdefg"), 3)] == [["a", "b", "c"], ["d", "e", "f"], ["g"]]
    assert [len(batch) for batch in islice(in_batches(iter(lambda: 0, 1), 2), 2)] == [2, 2]
