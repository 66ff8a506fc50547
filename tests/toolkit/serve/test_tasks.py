"""Routes of the tasks: rows equal to the library's for questions and for texts, for every form of a body, in a server process."""

import base64
import json
from urllib.parse import urlencode

import pytest

import runtimes
from runtimes.pool.rows import match_row, row_of
from tests.toolkit.serve.process import Process
from tests.toolkit.serve.served import multipart

pytestmark = pytest.mark.full

CASES = {
    "vqa": (
        "/v1/ask",
        "questions",
        ["is it red?", "how many dogs?"],
        lambda model, name, image, texts: row_of(name, model.answer(image, texts), model, None),
    ),
    "matching": (
        "/v1/match",
        "texts",
        ["a red ball", "two dogs"],
        lambda model, name, image, texts: match_row(name, texts, next(model.stream(image, texts))),
    ),
}
"""Task → path, option, its value, and the row by the library."""


ARTIFACTS = {"vqa": "tiny_vqa_artifacts", "matching": "matcher_artifacts"}
"""Task → fixture."""


@pytest.mark.parametrize("task", CASES)
def test_rows_of_a_task(task, request, drawn_images):
    path, option, texts, row = CASES[task]
    artifact = request.getfixturevalue(ARTIFACTS[task])["onnx-fp32"]
    contents = [image.path.read_bytes() for image in drawn_images[:2]]
    text = json.dumps(texts)
    encoded = [base64.b64encode(content).decode() for content in contents]
    form, form_type = multipart([("a.png", contents[0]), ("b.png", contents[1])], [(option, text)])
    requests = [
        (f"?{urlencode({option: text})}", contents[0], "image/png", ["image"], texts),
        (f"?{urlencode({option: texts[0]})}", contents[0], "image/png", ["image"], texts[:1]),  # one text needs no list
        ("", form, form_type, ["a.png", "b.png"], texts),
        ("", json.dumps({"images": encoded, option: texts}), "application/json", ["images[0]", "images[1]"], texts),
    ]
    serve = Process(artifact, "--threads", "1").until_ready()
    try:
        with runtimes.load(artifact, task=task, threads=1) as model:
            assert serve.server.get("/v1/info").json["tasks"] == {task: path}
            for query, body, kind, names, asked in requests:
                reply = serve.server.send("POST", path + query, body, {"content-type": kind})
                rows = [row(model, name, content, asked) for name, content in zip(names, contents, strict=False)]
                assert (reply.status, reply.json.get("rows")) == (200, json.loads(json.dumps(rows)))
        for query in ("", f"?{option}=[]", f"?{option}=[3]", f"?{urlencode({option: json.dumps(['x'] * 17)})}"):
            reply = serve.server.send("POST", path + query, contents[0])
            assert (reply.status, reply.code) == (400, "REQUEST_INVALID")
        reply = serve.server.send("POST", "/v1/caption", contents[0])
        assert (reply.status, reply.code) == (404, "NOT_FOUND")
        assert path in reply.json["error"]
        assert b'blip_images_total{result="ok"} 6.0' in serve.server.get("/metrics").body
    finally:
        serve.process.terminate()
    assert serve.end()[0] == 0
