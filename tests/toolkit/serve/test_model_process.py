"""The model process: a run that takes long sends signs of life between its tokens."""

import json
import time
from dataclasses import asdict

import pytest

import runtimes
from toolkit.serve.model import process
from toolkit.serve.model.messages import WorkItem
from toolkit.serve.settings import ModelJob
from toolkit.serve.tasks import CAPTION


class EndedError(Exception):
    """The feed has ended."""


@pytest.mark.parametrize(("every_s", "signs"), [(0.0, True), (60.0, False)])
def test_signs_of_life_come_before_the_result(tiny_artifacts, drawn_images, monkeypatch, every_s, signs):
    monkeypatch.setattr(process, "ALIVE_EVERY_S", every_s)
    artifact, messages = tiny_artifacts["onnx-int8"], []
    item = WorkItem(id=7, name="a.png", task="caption", options=asdict(CAPTION), deadline=time.monotonic() + 60)

    def feed():
        yield json.loads(json.dumps(asdict(item))), drawn_images[0].path.read_bytes()
        while not any("results" in message for message in messages):
            time.sleep(0.01)
        raise EndedError

    with runtimes.load(artifact, threads=1) as model, pytest.raises(EndedError):
        process.ModelLoop(model, ModelJob(artifact=str(artifact), threads=1), messages.append).run(feed())
    *before, done = messages
    assert [result["id"] for result in done["results"]] == [7]
    assert before == [{"alive": 1}] * len(before)
    assert (len(before) > 3) is signs
