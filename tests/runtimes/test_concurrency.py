"""Captioners used from several threads: state is passed in and out of a session, so every thread gets the captions it would get alone."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import runtimes

RECIPES = ["onnx-fp32", "onnx-int8", "onnx-int4", "pytorch-fp32", "pytorch-int8"]
SOME = [name if name in ("onnx-int8", "pytorch-fp32") else pytest.param(name, marks=pytest.mark.full) for name in RECIPES]


@pytest.fixture(scope="module")
def paths(drawn_images):
    return [image.path for image in drawn_images]


def requests_of(paths):
    """Eight requests that share nothing: other images, beams, prompts, lengths and batches."""
    return [
        ([paths[(turn + step) % len(paths)] for step in range(6)], {"num_beams": 1 + turn % 3, "batch_size": 1 + turn % 2, **more})
        for turn, more in enumerate([{}, {"prompt": "a picture of"}, {"max_length": 7}, {"workers": 2}] * 2)
    ]


@pytest.mark.parametrize("recipe", SOME)
def test_one_captioner_from_eight_threads(tiny_artifacts, paths, recipe):
    captioner = runtimes.load(tiny_artifacts[recipe], threads=1)
    requests = requests_of(paths)
    alone = [captioner.caption(images, **options) for images, options in requests]
    assert len({caption.text for captions in alone for caption in captions}) > 20
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            together = list(pool.map(lambda request: captioner.caption(request[0], **request[1]), requests))
            assert together == alone  # to the last bit of the scores


@pytest.mark.parametrize("recipe", SOME)
def test_one_captioner_scores_from_eight_threads(tiny_artifacts, drawn_images, recipe):
    captioner = runtimes.load(tiny_artifacts[recipe], threads=1)

    def scores(image):
        return captioner.score([image.path], captions=[image.captions])[0].tolist()

    alone = [scores(image) for image in drawn_images]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(scores, drawn_images)) == alone


@pytest.mark.full
def test_captioners_of_all_kinds_in_one_process(tiny_artifacts, paths):
    """Each in a thread of its own, all at once; torch's number of threads, which all share, is speed and no result."""
    captioners = [runtimes.load(tiny_artifacts[recipe], threads=1) for recipe in RECIPES]
    alone = [captioner.caption(paths) for captioner in captioners]
    with ThreadPoolExecutor(len(captioners)) as pool:
        assert list(pool.map(lambda captioner: captioner.caption(paths), captioners)) == alone


def test_loading_while_captioning(tiny_artifacts, paths):
    """What loading changes for the whole process (the allocator's threshold, `runtimes.host.malloc`) is put back, whoever ends first."""
    captioner = runtimes.load(tiny_artifacts["onnx-int8"], threads=1)
    alone = captioner.caption(paths[:4])

    def load_and_caption(recipe):
        return runtimes.load(Path(tiny_artifacts[recipe]), threads=1).caption(paths[:4])

    with ThreadPoolExecutor(8) as pool:
        captions = [pool.submit(captioner.caption, paths[:4]) for _ in range(4)]
        loaded = [pool.submit(load_and_caption, recipe) for recipe in ("onnx-int8", "pytorch-int8", "onnx-int8", "pytorch-int8")]
        assert [one.result() for one in captions] == [alone] * 4
        assert loaded[0].result() == loaded[2].result() == alone
        assert loaded[1].result() == loaded[3].result()
