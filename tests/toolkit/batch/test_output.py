"""Resuming a finished output, with JSON and text lines: it is checked, and images that have changed are captioned again."""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import runtimes
from runtimes.errors import OutputExistsError, RequestError
from runtimes.pool import calibration
from runtimes.pool.job import CaptionJob, Request
from runtimes.workers.logs import CHOICE
from toolkit.batch.finished import meta_of
from toolkit.batch.journal import partial_of
from toolkit.batch.output import caption_into

REQUEST = Request(
    prompt=None, num_beams=1, min_length=0, max_length=8, batch_size=1, max_pixels=None, reduce_large=False, strip_prompt=False
)


@pytest.fixture
def images(drawn_images, tmp_path):
    """Three images; the second is a text file."""
    (tmp_path / "images").mkdir()
    for number in (0, 2):
        shutil.copy(drawn_images[number].path, tmp_path / "images" / f"{number}.png")
    (tmp_path / "images" / "1.png").write_text("no image")
    return [str(path) for path in sorted((tmp_path / "images").iterdir())]


@pytest.fixture
def job(tiny_artifacts):
    artifact = str(tiny_artifacts["onnx-fp32"])
    return CaptionJob(artifact=artifact, device="cpu", threads=1, readers=0, request=REQUEST, log_level=logging.WARNING)


@pytest.fixture(params=[True, False], ids=["json", "text"])
def finished(request, job, images, tmp_path):
    """(run, output): a finished output, and a function that resumes it and returns (failed count, captioned images, resumed count)."""
    (tmp_path / "out").mkdir()
    output = tmp_path / "out" / "captions"

    def run(job, images=images, *, as_json=request.param, resume=True):
        captioned, done = [], []
        failed = caption_into(
            output, job, images, overwrite=False, resume=resume, as_json=as_json, on_rows=captioned.extend, on_resumed=done.append
        )
        return failed, [row["image"] for row in captioned], done

    run.as_json = request.param
    assert run(job, resume=False) == (1, images, [0])
    return run, output


def files_of(output):
    return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in output.parent.iterdir()}


def test_nothing_is_left_to_do(finished, job):
    run, output = finished
    before = files_of(output)
    for _ in range(2):
        assert run(job) == (1, [], [3])
    assert files_of(output) == before
    assert set(before) == {output.name, meta_of(output).name}


def test_the_temporary_settings_file_of_a_killed_run_is_removed(finished, job):
    run, output = finished
    before = files_of(output)
    output.with_name(f".{meta_of(output).name}-0123abcd.tmp").write_bytes(b"half")
    assert run(job) == (1, [], [3])
    assert files_of(output) == before


def test_other_settings_and_artifacts_are_refused_and_named(finished, job, tiny_artifacts):
    run, output = finished
    before = files_of(output)
    for other, names in (
        (replace(job, request=replace(REQUEST, num_beams=2, prompt="two")), ["prompt None then, 'two' now", "num_beams 1 then, 2 now"]),
        (replace(job, artifact=str(tiny_artifacts["onnx-int8"])), [f"artifact '{runtimes.load(job.artifact).manifest.digest}' then"]),
    ):
        with pytest.raises(RequestError) as caught:
            run(other)
        assert str(caught.value).startswith(f"{output}: ")
        assert all(name in str(caught.value) for name in names)
    with pytest.raises(RequestError, match=f"json {run.as_json} then, {not run.as_json} now"):
        run(job, as_json=not run.as_json)
    assert files_of(output) == before


def test_an_image_that_changed_is_captioned_again(finished, job, images, drawn_images):
    run, output = finished
    shutil.copy(drawn_images[5].path, images[1])
    assert run(job) == (0, [images[1]], [2])
    expected = runtimes.load(job.artifact, threads=1).caption(images, max_length=8)
    lines = output.read_text().splitlines()
    captions = [json.loads(line)["caption"] if run.as_json else line.split("\t")[1] for line in lines]
    assert captions == [caption.text for caption in expected]
    assert not partial_of(output).exists()
    assert run(job) == (0, [], [3])


@pytest.mark.parametrize("change", ["output", "no meta", "meta", "other images"])
def test_a_changed_output_or_one_of_other_images_is_refused_and_unchanged(finished, job, images, change):
    run, output = finished
    if change == "output":
        output.write_bytes(output.read_bytes().replace(b"a", b"b"))
    elif change == "no meta":
        meta_of(output).unlink()
    elif change == "meta":
        meta_of(output).write_bytes(meta_of(output).read_bytes()[:-9])
    before = files_of(output)
    with pytest.raises(OutputExistsError):
        run(job, images[:2] if change == "other images" else images)
    assert files_of(output) == before


def test_a_resumed_run_uses_the_schedule_that_the_stopped_run_chose(job, drawn_images, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(calibration, "BUDGET_S", 0.5)
    monkeypatch.setattr(calibration, "WINDOW_SHARE", 0.05)
    monkeypatch.setattr(calibration, "SHORT_S", 0.0)
    monkeypatch.setattr(calibration, "MEMORY_SHARE", 0.0)  # one process, so that the choice is made soon
    images, output, job = [str(tmp_path / f"{number:03}.png") for number in range(100)], tmp_path / "captions", replace(job, threads=None)
    for number, image in enumerate(images):
        Path(image).symlink_to(drawn_images[number % 16].path)
    done = []

    def choices():
        return [record.getMessage() for record in caplog.records if record.name == CHOICE.name]

    def stop(rows):
        if choices():
            raise KeyboardInterrupt

    def run(on_rows, *, resume):
        return caption_into(
            output, job, images, processes="auto", overwrite=False, resume=resume, as_json=True, on_rows=on_rows, on_resumed=done.append
        )

    with caplog.at_level(logging.INFO, CHOICE.name):
        with pytest.raises(KeyboardInterrupt):
            run(stop, resume=False)
        (first,) = choices()
        caplog.clear()
        assert run(lambda rows: None, resume=True) == 0
    schedule, _, reason = first.partition(": ")
    assert choices() == [f"{schedule}, as in the stopped run: {reason}"]
    assert 0 < done[1] < len(images)
    assert [json.loads(line)["image"] for line in output.read_text().splitlines()] == images
