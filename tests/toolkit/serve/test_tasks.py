"""Routes of the tasks: rows equal to the library's for questions and for texts, and the texts that a request must give."""

import json

import pytest

import runtimes
from runtimes.pool.rows import match_row, row_of
from tests.toolkit.serve.served import served
from toolkit.serve.settings import ModelJob, Settings

pytestmark = pytest.mark.full

CASES = {
    "vqa": (
        "/v1/ask",
        "questions",
        ["is it red?", "how many dogs?"],
        lambda model, image, texts: row_of("image", model.answer(image, texts), model, None),
    ),
    "matching": (
        "/v1/match",
        "texts",
        ["a red ball", "two dogs"],
        lambda model, image, texts: match_row("image", texts, next(model.stream(image, texts))),
    ),
}
"""Task → path, option, its value, and the row by the library."""


ARTIFACTS = {"vqa": "tiny_vqa_artifacts", "matching": "matcher_artifacts"}
"""Task → fixture."""


@pytest.mark.parametrize("task", CASES)
def test_rows_of_a_task(task, request, drawn_images):
    path, option, texts, row = CASES[task]
    artifact = request.getfixturevalue(ARTIFACTS[task])["onnx-fp32"]
    content = drawn_images[0].path.read_bytes()
    with (
        served(Settings(job=ModelJob(artifact=str(artifact), threads=1))) as server,
        runtimes.load(artifact, task=task, threads=1) as model,
    ):
        assert server.get("/v1/info").json["tasks"] == {task: path}
        expected = json.loads(json.dumps(row(model, content, texts)))
        for query in (f"?{option}={json.dumps(texts)}".replace(" ", "%20"), ""):
            reply = server.send("POST", path + query, content)
            if query:
                assert (reply.status, reply.json["rows"]) == (200, [expected])
            else:
                assert (reply.status, reply.code) == (400, "REQUEST_INVALID")
        reply = server.send("POST", "/v1/caption", content)
        assert (reply.status, reply.code) == (404, "NOT_FOUND")
        assert path in reply.json["error"]
