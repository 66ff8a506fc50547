"""`CaptionerPool`: captions equal those of a captioner in this process, in the order of the images."""

import signal
from pathlib import Path

import pytest
from PIL import Image

import runtimes
from runtimes import CaptionerPool
from runtimes.errors import RequestError, UnknownNameError


@pytest.fixture(scope="module")
def artifact(tiny_artifacts):
    return tiny_artifacts["onnx-int8"]


@pytest.fixture(scope="module")
def paths(drawn_images):
    return [image.path for image in drawn_images]


def test_captions_of_two_processes_are_those_of_a_captioner(artifact, paths, tmp_path):
    (tmp_path / "none.png").write_text("no image")
    sources = [*paths, tmp_path / "none.png", *[path.read_bytes() for path in paths[:3]], *map(str, paths)]
    with runtimes.load(artifact, threads=1) as captioner, CaptionerPool(artifact, processes=2, threads=1) as pool:
        expected = captioner.caption(sources, max_length=8)
        assert pool.caption(sources, max_length=8) == expected
        assert (pool.schedule.processes, pool.schedule.threads) == (2, 1)
        options = {"num_beams": 3, "prompt": "two", "num_return_sequences": 2, "log_probabilities": True, "batch_size": 4}
        assert pool.caption(iter(sources), **options) == captioner.caption(sources, **options)
        assert pool.caption(paths[0], bad_words_ids=[[5]]) == captioner.caption(paths[0], bad_words_ids=[[5]])
        assert pool.caption([]) == []


@pytest.mark.full
def test_a_stopped_call_and_a_second_call(artifact, paths):
    with CaptionerPool(artifact, processes=2, threads=1) as pool:
        captions = pool.stream(path for _ in range(1000) for path in paths)
        first = next(captions)
        with pytest.raises(RequestError, match="running"):
            pool.caption(paths)
        captions.close()
        assert pool.caption(paths[0]) == [first]


@pytest.mark.parametrize(
    "invalid", [{"max_length": "long"}, {"batch_size": 0}, {"num_beams": 0}, {"prompt": "qqq " * 600}, {"prompt": ["a", "b"]}]
)
def test_invalid_settings_are_errors(artifact, paths, invalid):
    with CaptionerPool(artifact, processes=1, threads=1) as pool, pytest.raises(RequestError):
        pool.caption(paths[:2], **invalid)


def test_invalid_images_and_arguments(artifact, paths):
    with CaptionerPool(artifact, processes=1, threads=1) as pool:
        with pytest.raises(RequestError, match="paths and bytes"):
            pool.caption([paths[0], Image.open(paths[0])])
        with pytest.raises(ZeroDivisionError):
            pool.caption(paths[1 // index] for index in (1, 0))
        assert len(pool.caption(paths[:2])) == 2
    for arguments in ({"processes": 0}, {"threads": 0}):
        with pytest.raises(RequestError, match="at least 1"):
            CaptionerPool(artifact, **arguments)
    with pytest.raises(UnknownNameError), CaptionerPool(artifact, processes=1, device="abacus") as pool:
        pool.caption(paths)


@pytest.mark.full
@pytest.mark.parametrize(
    "arguments",
    [
        *({"timeout_s": value} for value in ("a", -1, 0, float("inf"), float("nan"), 1e300)),
        *({"max_pixels": value} for value in ("5", 0, 1.5)),
        {"draft": "x"},
        {"threads": 1.5},
    ],
    ids=str,
)
def test_arguments_of_a_pool(artifact, arguments):
    with pytest.raises(RequestError, match=next(iter(arguments))):
        CaptionerPool(artifact, **arguments)


def test_a_pool_outlives_its_processes(artifact, paths, tmp_path):
    """Without a graceful end, such as a kill for memory, the images in flight are tried again."""
    with CaptionerPool(artifact, processes=2, threads=1) as pool:
        expected = pool.caption(paths)
        for lane in pool._supervisor._lanes:
            lane._worker._child.send_signal(signal.SIGKILL)
            lane._worker._child.wait()
        assert pool.caption(paths) == expected
    pool.close()
    assert pool.caption(Path(paths[0])) == expected[:1]
    pool.close()
