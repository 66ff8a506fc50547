"""Captioners in several threads return the same captions as in one thread, since sessions keep no state between calls."""

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
    """Eight requests with different images, beams, prompts, lengths and batch sizes."""
    return [
        ([paths[(turn + step) % len(paths)] for step in range(6)], {"num_beams": 1 + turn % 3, "batch_size": 1 + turn % 2, **more})
        for turn, more in enumerate([{}, {"prompt": "a picture of"}, {"max_length": 7}, {"workers": 2}] * 2)
    ]


@pytest.mark.parametrize("recipe", SOME)
@pytest.mark.full
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
        return captioner.score([image.path], captions=[image.texts])[0].tolist()

    alone = [scores(image) for image in drawn_images]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(scores, drawn_images)) == alone


@pytest.mark.full
def test_captioners_of_all_kinds_in_one_process(tiny_artifacts, paths):
    """Each captioner in its own thread. Torch's number of threads, which they share, does not change results."""
    captioners = [runtimes.load(tiny_artifacts[recipe], threads=1) for recipe in RECIPES]
    alone = [captioner.caption(paths) for captioner in captioners]
    with ThreadPoolExecutor(len(captioners)) as pool:
        assert list(pool.map(lambda captioner: captioner.caption(paths), captioners)) == alone


def test_loading_while_captioning(tiny_artifacts, paths):
    """Loading changes a setting of the process (`runtimes.host.malloc`), which overlapping loads and captions must not disturb."""
    captioner = runtimes.load(tiny_artifacts["onnx-int8"], threads=1)
    alone = captioner.caption(paths[:4])

    def load_and_caption(recipe):
        return runtimes.load(Path(tiny_artifacts[recipe]), threads=1).caption(paths[:4])

    with ThreadPoolExecutor(8) as pool:
        captions = [pool.submit(captioner.caption, paths[:4]) for _ in range(4)]
        loaded = [pool.submit(load_and_caption, recipe) for recipe in ("onnx-int8", "pytorch-int8", "onnx-int8", "pytorch-int8")]
        assert [future.result() for future in captions] == [alone] * 4
        assert loaded[0].result() == loaded[2].result() == alone
        assert loaded[1].result() == loaded[3].result()
