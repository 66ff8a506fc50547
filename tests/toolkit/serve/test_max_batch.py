"""`--max-batch`: waiting images share a run, answers are those of single images, and recipes whose answers would change are refused."""

import json
import subprocess
import threading
import time

import pytest

import runtimes
from runtimes.pool.rows import row_of
from tests.toolkit.serve.process import COMMAND
from tests.toolkit.serve.served import PATIENCE_S, served
from toolkit.serve.settings import Limits, ModelJob, Settings

MAX_BATCH = 4
INVARIANT, DEPENDENT = "onnx-fp32", "pytorch-int8"
"""Recipes whose captions do not depend, and depend, on the number of images per run."""


@pytest.fixture(scope="module")
def artifact(tiny_artifacts):
    return tiny_artifacts[INVARIANT]


@pytest.fixture(scope="module")
def contents(drawn_images):
    return [image.path.read_bytes() for image in drawn_images[:6]]


@pytest.fixture(scope="module")
def expected(artifact, contents):
    """Rows of the library, one image per run, for each query."""
    with runtimes.load(artifact, threads=1) as model:
        return {
            query: [
                json.loads(json.dumps(row_of("image", [model.caption(content, batch_size=1, **options)[0]], model, None)))
                for content in contents
            ]
            for query, options in {"": {}, "?num_beams=2": {"num_beams": 2}}.items()
        }


@pytest.fixture(scope="module")
def server(artifact):
    job = ModelJob(artifact=str(artifact), threads=1, max_batch=MAX_BATCH)
    with served(Settings(job=job, limits=Limits(max_wait_s=PATIENCE_S))) as running:
        yield running


def answers_of_waiting(server, contents, queries):
    """Send one request for each image while the model is suspended; return the rows, and the number of runs that they took."""
    rows, before = {}, server.service.model.runs
    clients = [
        threading.Thread(target=lambda i=i: rows.update({i: server.post(contents[i], queries[i]).json["rows"][0]}))
        for i in range(len(contents))
    ]
    with server.stopped_model():
        for count, client in enumerate(clients, start=1):
            client.start()
            server.until(lambda service, count=count: service.model.items == count)
    for client in clients:
        client.join()
    return [rows[i] for i in range(len(contents))], server.service.model.runs - before


def test_images_that_wait_share_a_run_and_have_the_rows_of_single_images(server, contents, expected):
    end, runs = time.monotonic() + PATIENCE_S, len(contents)
    while runs == len(contents):  # how many images are read when a run begins depends on the machine
        assert time.monotonic() < end
        rows, runs = answers_of_waiting(server, contents, [""] * len(contents))
        assert rows == expected[""]
    assert runs >= len(contents) / MAX_BATCH


def test_images_with_other_options_have_runs_of_their_own(server, contents, expected):
    """Neighbours have other options, so no run has two images."""
    queries = [list(expected)[i % 2] for i in range(len(contents))]
    rows, runs = answers_of_waiting(server, contents, queries)
    assert rows == [expected[query][i] for i, query in enumerate(queries)]
    assert runs == len(contents)


def test_a_bad_image_costs_no_other_one(server, contents, expected):
    contents = [*contents[:2], b"no image", *contents[3:]]
    replies = {}
    clients = [threading.Thread(target=lambda i=i: replies.update({i: server.post(contents[i])})) for i in range(len(contents))]
    with server.stopped_model():
        for count, client in enumerate(clients, start=1):
            client.start()
            server.until(lambda service, count=count: service.model.items == count)
    for client in clients:
        client.join()
    assert (replies[2].status, replies[2].code) == (400, "IMAGE_UNREADABLE")
    assert [replies[i].json["rows"][0] for i in range(len(contents)) if i != 2] == expected[""][:2] + expected[""][3:]


def test_an_image_that_waits_alone_is_run_at_once(server, contents, expected):
    """Nothing waits for a full batch: the next request is sent when this one is answered."""
    before = server.service.model.runs
    assert [server.post(content).json["rows"][0] for content in contents] == expected[""]
    assert server.service.model.runs - before == len(contents)


@pytest.mark.full
def test_questions_and_texts(tiny_vqa_artifacts, matcher_artifacts, contents):
    """Requests of one image each have the rows of a server without batches."""
    for artifacts, path, query in (
        (tiny_vqa_artifacts, "/v1/ask", "?questions=is+it+red"),
        (matcher_artifacts, "/v1/match", "?texts=two+dogs"),
    ):
        rows = []
        for max_batch in (1, MAX_BATCH):
            job = ModelJob(artifact=str(artifacts[INVARIANT]), threads=1, max_batch=max_batch)
            with served(Settings(job=job)) as server:
                assert server.get("/v1/info").json["max_batch"] == max_batch
                rows.append([server.send("POST", path + query, content).json["rows"] for content in contents])
        assert rows[0] == rows[1]
        assert "error" not in rows[0][0][0]


@pytest.mark.full
def test_a_recipe_whose_captions_depend_on_the_batch_is_refused(tiny_artifacts):
    artifact = tiny_artifacts[DEPENDENT]
    command = [*COMMAND, str(artifact), "--port", "0", "--max-batch", "2"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert (run.returncode, run.stdout, run.stderr.splitlines()[1:]) == (
        1,
        "",
        [f"Error: {artifact}: its results depend on the number of images per run; use --max-batch 1"],
    )
