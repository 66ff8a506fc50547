"""A thousand damaged images: each request is answered as the library answers, and nothing is left in the server."""

import base64
import json
import random

import pytest
from prometheus_client.parser import text_string_to_metric_families

import runtimes
from runtimes.pool.rows import row_of
from tests.fuzz.images import SEEDS
from tests.fuzz.mutate import damaged
from tests.toolkit.serve.served import served
from toolkit.serve.settings import Limits, ModelJob, Settings

IMAGES, EACH, SEED = 1_000, 20, 26
MAX_PIXELS = 1_000_000
EMPTY = ("blip_requests_in_flight", "blip_queued_images", "blip_queued_seconds", "blip_buffered_bytes")


@pytest.mark.full  # a thousand images
def test_damaged_images_are_answered_as_by_the_library(tiny_artifacts):
    chance, kinds = random.Random(SEED), list(SEEDS)
    contents = [damaged(SEEDS[kinds[number % len(kinds)]], chance)[1] for number in range(IMAGES)]
    artifact, limits = tiny_artifacts["onnx-fp32"], Limits(max_pixels=MAX_PIXELS, max_images=EACH, max_rows=EACH)
    captioner = runtimes.load(artifact, threads=1, max_pixels=MAX_PIXELS)
    codes = []
    with served(Settings(job=ModelJob(artifact=str(artifact), threads=1), limits=limits)) as server:
        for start in range(0, IMAGES, EACH):
            group = contents[start : start + EACH]
            reply = server.post_json({"images": [base64.b64encode(content).decode() for content in group]})
            captions = captioner.caption(group)
            rows = [row_of(f"images[{number}]", [caption], captioner, None) for number, caption in enumerate(captions)]
            expected = json.loads(json.dumps(rows))
            assert reply.status == 200
            assert [(row.get("caption"), row.get("code")) for row in reply.json["rows"]] == [
                (row.get("caption"), row.get("code")) for row in expected
            ]
            codes += [row.get("code") for row in expected]
        metrics = {family.name: family.samples for family in text_string_to_metric_families(server.get("/metrics").body.decode())}
        (starts,) = metrics["blip_model_starts"]
    assert {None, "IMAGE_UNREADABLE"} <= set(codes)
    assert {name: [sample.value for sample in metrics[name]] for name in EMPTY} == {name: [0] for name in EMPTY}
    results = {sample.labels["result"]: sample.value for sample in metrics["blip_images"]}
    assert results == {code or "ok": codes.count(code) for code in set(codes)}
    assert starts.value == 1
