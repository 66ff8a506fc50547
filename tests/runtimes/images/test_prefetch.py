"""`read_ahead` and `Captioner.stream`: order, bounds, equal captions for any number of workers, no remaining threads."""

import threading
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

import runtimes
from runtimes.errors import RequestError
from runtimes.images.prefetch import read_ahead


def readers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("read-ahead")]


@pytest.mark.parametrize("workers", [0, 1, 2, 7])
@pytest.mark.parametrize("ahead", [1, 3, 100])
def test_results_come_in_order(workers, ahead):
    assert list(read_ahead(lambda number: number * number, range(40), workers, ahead)) == [number * number for number in range(40)]
    assert list(read_ahead(str, [], workers, ahead)) == []
    assert readers() == []


def test_a_later_result_waits_for_its_turn():
    """The first item finishes after the second, which requires two threads at once."""
    second_done = threading.Event()

    def work(number):
        if number == 0:
            second_done.wait()
        if number == 1:
            second_done.set()
        return number

    assert list(read_ahead(work, range(6), 2, 2)) == list(range(6))


@pytest.mark.parametrize(("workers", "ahead"), [(1, 1), (1, 4), (3, 4), (8, 2)])
def test_pending_items_are_bounded(workers, ahead):
    taken = []

    def items():
        for number in range(50):
            taken.append(number)
            yield number

    for used, _ in enumerate(read_ahead(lambda number: number, items(), workers, ahead), start=1):
        assert len(taken) <= used + ahead
    assert len(taken) == 50


def test_closing_early_leaves_no_thread_and_cancels_items_that_have_not_started():
    started, go = [], threading.Event()

    def work(number):
        started.append(number)
        if number:
            go.wait()
        return number

    results = read_ahead(work, range(1000), 2, 500)
    assert next(results) == 0
    go.set()
    results.close()
    assert readers() == []
    assert len(started) <= 501


def test_an_exception_of_the_consumer_leaves_no_thread():
    def consume():
        with closing(read_ahead(lambda number: number, range(100), 2, 4)) as results:
            return [1 / (number - 3) for number in results]

    with pytest.raises(ZeroDivisionError):
        consume()
    assert readers() == []


@pytest.fixture(scope="module")
def images(drawn_images, tmp_path_factory):
    """12 images, of which the second, the sixth and the last cannot be read."""
    folder = tmp_path_factory.mktemp("read")
    whole = drawn_images[0].path.read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    mixed = [image.path for image in drawn_images[:12]]
    mixed[1], mixed[5], mixed[11] = folder / "none.png", folder / "cut.png", np.zeros((4, 4), np.float32)
    return mixed


@pytest.mark.parametrize("recipe", ["onnx-fp32", "onnx-int8", "pytorch-int8"])
@pytest.mark.parametrize("batch_size", [1, 3, 5, 64])
def test_captions_are_the_same_with_any_number_of_workers(tiny_artifacts, images, recipe, batch_size):
    captioner = runtimes.load(tiny_artifacts[recipe], threads=1)
    alone = captioner.caption(images, batch_size=batch_size, workers=0)
    assert [caption.error is None for caption in alone] == [index not in (1, 5, 11) for index in range(12)]
    assert len({caption.text for caption in alone}) > 5
    for workers in (1, 2, 8):
        assert captioner.caption(images, batch_size=batch_size, workers=workers) == alone
    assert readers() == []


def test_each_batch_is_yielded_before_the_next_one_runs(tiny_artifacts, images):
    captioner, phases = runtimes.load(tiny_artifacts["onnx-fp32"], threads=1), []
    whole = captioner.caption(images, batch_size=3)
    with closing(captioner.stream(images, batch_size=3, workers=2, timer=lambda phase, _: phases.append(phase))) as captions:
        assert list(islice(captions, 3)) == whole[:3]
        assert (phases.count("read"), phases.count("encode")) == (1, 1)
        assert next(captions) == whole[3]
        assert (phases.count("read"), phases.count("encode")) == (2, 2)
    assert readers() == []


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 0), (4, 0), (1, 1), (1, 5), (4, 3)])
def test_an_iterator_is_streamed_within_the_bound_that_stream_documents(tiny_artifacts, drawn_images, batch_size, workers):
    """The iterator is endless. The number of images taken ahead of the captions bounds the pixels in memory; the bound is reached."""
    requested = 0

    def endless():
        nonlocal requested
        while True:
            requested += 1
            yield drawn_images[requested % 16].path

    captioner, ahead = runtimes.load(tiny_artifacts["onnx-fp32"], threads=1), []
    with closing(captioner.stream(endless(), batch_size=batch_size, workers=workers, max_length=3)) as captions:
        for yielded, _ in enumerate(islice(captions, 40)):
            ahead.append(requested - yielded)  # the current caption is not counted: `yielded` starts at 0
    assert max(ahead) == (2 * batch_size + workers if workers else batch_size)
    assert readers() == []


@pytest.mark.parametrize(("workers", "error"), [(-1, "workers must not be negative")])
def test_an_invalid_number_of_workers(tiny_artifacts, images, workers, error):
    captioner = runtimes.load(tiny_artifacts["onnx-fp32"], threads=1)
    for call in (captioner.caption, captioner.stream):
        with pytest.raises(RequestError, match=error):
            call([Path("none.png")], workers=workers)
