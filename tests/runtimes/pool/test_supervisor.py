"""`Supervisor`: rows from subprocesses."""

import logging
import signal
import threading
import time
from contextlib import closing

import onnxruntime
import pytest

import runtimes
from runtimes.errors import ToolkitError
from runtimes.pool.job import CaptionJob, Item, Request
from runtimes.pool.supervisor import Supervisor
from runtimes.pool.worker import CaptioningWorker

REQUEST = Request(
    prompt=None, num_beams=1, min_length=0, max_length=8, batch_size=1, max_pixels=None, reduce_large=False, strip_prompt=False
)


def job_of(artifact, **changes):
    settings = {"device": "cpu", "threads": 1, "readers": 0, "request": REQUEST, "log_level": logging.WARNING, **changes}
    return CaptionJob(artifact=str(artifact), **settings)


def test_without_sigkill(tiny_artifacts, drawn_images, monkeypatch):
    """Windows has no SIGKILL."""
    images = [str(image.path) for image in drawn_images[:3]]
    artifact = tiny_artifacts["onnx-fp32"]
    monkeypatch.delattr(signal, "SIGKILL")
    ready = []
    with Supervisor() as supervisor:
        done = list(supervisor.run(job_of(artifact), [[Item(image)] for image in images], ready.append))
    rows = [row for _, rows in done for row in rows]
    expected = runtimes.load(artifact, threads=1).caption(images, max_length=8)
    assert [(row["image"], row["caption"]) for row in rows] == [
        (image, caption.text) for image, caption in zip(images, expected, strict=True)
    ]
    assert len(ready) == 1


def test_an_interrupt_while_a_thread_starts(tiny_artifacts, drawn_images, monkeypatch):
    """Ctrl-C at that moment must not leave a thread that reads the batches, because the caller closes their source."""
    entered, start = threading.Event(), threading.Thread.start

    def batches():
        entered.set()
        time.sleep(0.3)
        yield [Item(str(drawn_images[0].path))]

    def interrupted(thread):
        start(thread)
        entered.wait()
        raise KeyboardInterrupt

    source = batches()
    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt), Supervisor() as supervisor, closing(source):
        next(supervisor.run(job_of(tiny_artifacts["onnx-fp32"]), source))
    assert source.gi_frame is None


def test_an_engine_that_fails_ends_the_process_so_that_the_image_is_tried_alone(tiny_artifacts, drawn_images, monkeypatch):
    """The error is not a `ToolkitError`, which would end the whole run."""
    images = [str(image.path) for image in drawn_images[:2]]
    run_graph, sent = onnxruntime.InferenceSession.run_with_iobinding, []

    def fail_at_the_second(*arguments):
        if len(sent) == 2:
            raise RuntimeError("illegal instruction")
        return run_graph(*arguments)

    monkeypatch.setattr(onnxruntime.InferenceSession, "run_with_iobinding", fail_at_the_second)
    with pytest.raises(RuntimeError, match="illegal instruction") as caught:
        CaptioningWorker()(job_of(tiny_artifacts["onnx-fp32"]), sent.append, iter([((image, False), b"") for image in images]))
    assert not isinstance(caught.value, ToolkitError)
    assert [row.get("image") for row in sent] == [None, images[0]]
