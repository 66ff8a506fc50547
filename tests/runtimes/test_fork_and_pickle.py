"""A captioner after a fork raises an error that names the cure; a pickled captioner loads its artifact again."""

import multiprocessing
import os
import pickle
import shutil
from concurrent.futures import ProcessPoolExecutor

import pytest

import runtimes
from runtimes.errors import DigestError, RequestError
from runtimes.tasks.captioner import Captioner
from tests.drafted import certain_table, drafted_copy


def unpickled(content):
    return pickle.loads(content)  # noqa: S301 - multiprocessing unpickles captioners like this; the bytes are made by these tests


@pytest.fixture(scope="module", params=["onnx-fp32", "pytorch-fp32"])
def artifact(request, tiny_artifacts):
    return tiny_artifacts[request.param]


def test_a_fork_after_load_is_an_error_and_not_a_hang(artifact, drawn_images):
    captioner = runtimes.load(artifact, threads=2)
    path = drawn_images[0].path
    captioner.caption(path)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            captioner.caption(path)
            os.write(writer, b"captioned")
        except RequestError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        message = stream.read()
    os.waitpid(child, 0)
    assert "loaded before a fork" in message
    assert "--preload" in message
    assert captioner.caption(path)[0].error is None  # the parent goes on


def test_a_pickled_captioner_has_the_same_captions_and_settings(artifact, drawn_images):
    captioner = runtimes.load(artifact, threads=1, max_pixels=900_000, reduce_large=True)
    again = unpickled(pickle.dumps(captioner))
    path = drawn_images[0].path
    assert again.caption(path, num_beams=2) == captioner.caption(path, num_beams=2)
    assert again.info() == captioner.info()
    assert unpickled(pickle.dumps(again)).caption(path) == captioner.caption(path)


def caption_of(captioner, path):
    return captioner.caption(path)[0].text


def test_processes_get_the_captioner_as_an_argument(tiny_artifacts, drawn_images):
    captioner = runtimes.load(tiny_artifacts["onnx-fp32"], threads=1)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(caption_of, captioner, drawn_images[0].path).result() == captioner.caption(drawn_images[0].path)[0].text


def test_what_cannot_be_pickled(tiny_artifacts, tmp_path):
    folder = tmp_path / "artifact"
    shutil.copytree(tiny_artifacts["onnx-fp32"], folder)
    captioner = runtimes.load(folder, threads=1)
    pickled = pickle.dumps(captioner)
    other = Captioner(captioner.session, captioner.tokenizer, captioner.manifest)
    with pytest.raises(RequestError, match=r"runtimes\.load"):
        pickle.dumps(other)
    captioner.close()
    with pytest.raises(RequestError, match="open"):
        pickle.dumps(captioner)
    shutil.rmtree(folder)
    shutil.copytree(tiny_artifacts["onnx-int8"], folder)
    with pytest.raises(DigestError):
        unpickled(pickled)


def test_a_pickled_captioner_keeps_its_setting_of_drafts(tiny_artifacts, tmp_path):
    drafted = drafted_copy(tiny_artifacts["onnx-fp32"], tmp_path / "drafted", certain_table([[62, 5, 6, 7, 3]]))
    kept = {draft: unpickled(pickle.dumps(runtimes.load(drafted, threads=1, draft=draft))).drafter is not None for draft in (None, False)}
    assert kept == {None: True, False: False}
