"""`supervise`: rows from a subprocess."""

import logging
import signal

import onnxruntime
import pytest

import runtimes
from runtimes.errors import ToolkitError
from runtimes.pool.job import CaptionJob, Request
from runtimes.pool.supervisor import supervise
from runtimes.pool.worker import run

REQUEST = Request(
    prompt=None, num_beams=1, min_length=0, max_length=8, batch_size=1, max_pixels=None, reduce_large=False, strip_prompt=False
)


def test_supervise_without_sigkill(tiny_artifacts, drawn_images, monkeypatch):
    """Windows has no SIGKILL."""
    images = [str(image.path) for image in drawn_images[:3]]
    artifact = tiny_artifacts["onnx-fp32"]
    monkeypatch.delattr(signal, "SIGKILL")
    job = CaptionJob(artifact=str(artifact), device="cpu", threads=1, readers=0, request=REQUEST, images=(), log_level=logging.WARNING)
    ready = []
    rows = [row for batch in supervise(job, [images[:2], images[2:]], ready.append, proven=False) for row in batch]
    expected = runtimes.load(artifact, threads=1).caption(images, max_length=8)
    assert [(row["image"], row["caption"]) for row in rows] == [
        (image, caption.text) for image, caption in zip(images, expected, strict=True)
    ]
    assert len(ready) == 1


def test_an_engine_that_fails_ends_the_process_so_that_the_image_is_tried_alone(tiny_artifacts, drawn_images, monkeypatch):
    """The error is not a `ToolkitError`, which would end the whole run."""
    images = tuple(str(image.path) for image in drawn_images[:2])
    job = CaptionJob(
        artifact=str(tiny_artifacts["onnx-fp32"]),
        device="cpu",
        threads=1,
        readers=0,
        request=REQUEST,
        images=images,
        log_level=logging.WARNING,
    )
    run_graph, sent = onnxruntime.InferenceSession.run_with_iobinding, []

    def fail_at_the_second(*arguments):
        if len(sent) == 2:
            raise RuntimeError("illegal instruction")
        return run_graph(*arguments)

    monkeypatch.setattr(onnxruntime.InferenceSession, "run_with_iobinding", fail_at_the_second)
    with pytest.raises(RuntimeError, match="illegal instruction") as caught:
        run(job, sent.append)
    assert not isinstance(caught.value, ToolkitError)
    assert [row.get("image") for row in sent] == [None, images[0]]
