"""`POST /v1/caption`: rows equal to the library's captions, for every form of a body, and errors as codes."""

import base64
import json
import os
import signal
import socket
import threading

import pytest
from PIL import Image

import runtimes
from runtimes.pool.rows import row_of
from tests.images import encode
from tests.toolkit.serve.served import CAPTION, multipart, served
from toolkit.serve.settings import Access, Limits, ModelJob, Settings

LIMITS = Limits(body_bytes=60_000, max_pixels=10_000, max_images=4, max_rows=4, head_bytes=4_096)


@pytest.fixture(scope="module")
def artifact(tiny_artifacts):
    return tiny_artifacts["onnx-fp32"]


@pytest.fixture(scope="module")
def contents(drawn_images):
    return [image.path.read_bytes() for image in drawn_images[:4]]


@pytest.fixture(scope="module")
def server(artifact):
    with served(Settings(job=ModelJob(artifact=str(artifact), threads=1), limits=LIMITS)) as running:
        yield running


@pytest.fixture(scope="module")
def captioner(artifact):
    return runtimes.load(artifact, threads=1)


def expected_rows(captioner, names, contents, **options):
    rows = [row_of(name, [caption], captioner, None) for name, caption in zip(names, captioner.caption(contents, **options), strict=True)]
    return json.loads(json.dumps(rows))


def test_the_bytes_of_an_image(server, captioner, contents):
    for content in contents:
        reply = server.post(content, content_type="application/x-www-form-urlencoded")  # as `curl --data-binary` sends it
        assert (reply.status, reply.json["rows"]) == (200, expected_rows(captioner, ["image"], [content]))


def test_timings_are_in_the_body_and_in_a_header(server, contents):
    reply = server.post(contents[0])
    timings = reply.json["timings"]
    assert set(timings) == {"queue_s", "read_s", "encode_s", "decode_s", "total_s"}
    assert timings["total_s"] >= timings["encode_s"] + timings["decode_s"] > 0
    assert [part.partition(";")[0] for part in reply.headers["server-timing"].split(", ")] == [name[:-2] for name in timings]


@pytest.mark.parametrize(
    ("query", "options"),
    [
        ("?num_beams=3&max_length=9", {"num_beams": 3, "max_length": 9}),
        ("?prompt=two+dogs", {"prompt": "two dogs"}),
        ("?do_sample=true&seed=3&top_k=5&temperature=1.5", {"do_sample": True, "seed": 3, "top_k": 5, "temperature": 1.5}),
        (
            "?num_beams=4&num_return_sequences=3&early_stopping=never",
            {"num_beams": 4, "num_return_sequences": 3, "early_stopping": "never"},
        ),
        ("?suppress_tokens=[5,6]&log_probabilities=true", {"suppress_tokens": (5, 6), "log_probabilities": True}),
    ],
)
def test_options_in_the_query(server, captioner, contents, query, options):
    reply = server.post(contents[0], query)
    assert (reply.status, reply.json.get("rows")) == (200, expected_rows(captioner, ["image"], contents[:1], **options))


def test_several_images_in_a_form(server, captioner, contents):
    names = [f"{i}.png" for i in range(4)]
    body, kind = multipart(zip(names, contents, strict=True), [("num_beams", "2"), ("prompt", "a")])
    reply = server.post(body, content_type=kind)
    assert (reply.status, reply.json["rows"]) == (200, expected_rows(captioner, names, contents, num_beams=2, prompt="a"))


def test_several_images_in_json(server, captioner, contents):
    reply = server.post_json({"images": [base64.b64encode(content).decode() for content in contents], "max_new_tokens": 4})
    names = [f"images[{i}]" for i in range(4)]
    assert (reply.status, reply.json["rows"]) == (200, expected_rows(captioner, names, contents, max_new_tokens=4))


def test_an_error_belongs_to_its_image(server, captioner, contents):
    body, kind = multipart([("bad.png", b"no image"), ("good.png", contents[0])])
    reply = server.post(body, content_type=kind)
    bad, good = reply.json["rows"]
    assert (reply.status, bad["code"], [good]) == (200, "IMAGE_UNREADABLE", expected_rows(captioner, ["good.png"], contents[:1]))


LARGE = encode(Image.new("RGB", (101, 100)), "PNG")


@pytest.mark.parametrize(
    ("body", "content_type", "query", "status", "code"),
    [
        (b"", "image/png", "", 400, "REQUEST_INVALID"),
        (b"no image", "image/png", "", 400, "IMAGE_UNREADABLE"),
        (LARGE, "image/png", "", 422, "IMAGE_TOO_LARGE"),
        (bytes(60_001), "image/png", "", 413, "BODY_TOO_LARGE"),
        (b"{", "application/json", "", 400, "REQUEST_INVALID"),
        (b"[]", "application/json", "", 400, "REQUEST_INVALID"),
        (b'{"images": []}', "application/json", "", 400, "REQUEST_INVALID"),
        (b'{"images": ["%%"]}', "application/json", "", 400, "REQUEST_INVALID"),
        (b'{"images": ["", "", "", "", ""]}', "application/json", "", 400, "REQUEST_INVALID"),
        (b'{"images": ["file:///etc/passwd"]}', "application/json", "", 400, "REQUEST_INVALID"),
        (b"[" * 50_000, "application/json", "", 400, "REQUEST_INVALID"),
        (b"--x\r\n", "multipart/form-data; boundary=x", "", 400, "REQUEST_INVALID"),
        (b"x", "multipart/form-data", "", 400, "REQUEST_INVALID"),
        (b"x", "image/png", "?beams=3", 400, "REQUEST_INVALID"),
        (b"x", "image/png", "?num_beams=three", 400, "REQUEST_INVALID"),
        (b"x", "image/png", "?num_beams=3&num_beams=3", 400, "REQUEST_INVALID"),
        (b"x", "image/png", "?num_beams=5", 400, "REQUEST_INVALID"),
        (b"x", "image/png", "?max_pixels=99999999", 400, "REQUEST_INVALID"),
        (b"x", "image/png", "?prompt=" + 3_000 * "%20a", 400, "HTTP_INVALID"),
        (b"x", "image/png", "?%ff", 400, "REQUEST_INVALID"),
    ],
    ids=range(20),
)
def test_bad_requests(server, body, content_type, query, status, code):
    reply = server.post(body, query, content_type)
    assert (reply.status, reply.code) == (status, code)
    assert "\n" not in reply.json["error"]


def test_a_compressed_body_is_refused_by_name(server, contents):
    reply = server.post(contents[0], **{"content-encoding": "gzip"})
    assert (reply.status, reply.code) == (400, "REQUEST_INVALID")
    assert "gzip" in reply.json["error"]


def test_a_form_may_give_one_text_for_a_list(server, captioner, contents):
    (free,) = expected_rows(captioner, ["image"], contents[:1])
    word = free["caption"].split()[0]
    reply = server.post(contents[0], f"?bad_words={word}")
    assert reply.status == 200
    assert word not in reply.json["rows"][0]["caption"].split()


def test_options_that_the_model_refuses(server, contents):
    reply = server.post(contents[0], "?max_length=100000")
    assert (reply.status, reply.code) == (400, "REQUEST_INVALID")


def test_a_body_without_a_length_is_bounded_as_well(server):
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(f"POST {CAPTION} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        connection.sendall(b"".join(b"ff00\r\n" + bytes(0xFF00) + b"\r\n" for _ in range(2)))
        assert b" 413 " in connection.recv(100)


def test_paths_and_methods(server):
    assert (server.get("/v1/none").status, server.get("/v1/none").code) == (404, "NOT_FOUND")
    reply = server.get(CAPTION)
    assert (reply.status, reply.code, reply.headers["allow"]) == (405, "METHOD_NOT_ALLOWED", "POST")


def test_information_and_probes(server, captioner):
    info = server.get("/v1/info").json
    assert (info["model"]["digest"], info["tasks"]) == (captioner.manifest.digest, {"caption": CAPTION})
    assert info["limits"]["body_bytes"] == LIMITS.body_bytes
    assert info["check"] == {"kind": "sample image", "results": 1, "equal": 1}
    assert (server.get("/healthz").status, server.get("/readyz").status) == (200, 200)


def test_no_header_lets_pages_of_other_sites_read_answers(server):
    for path in ("/", "/v1/info", "/metrics", "/healthz"):
        assert not [
            name for name in server.get(path, Origin=f"http://127.0.0.1:{server.port}").headers if name.startswith("access-control")
        ]


def test_answers_of_many_clients_are_their_own(server, captioner, contents):
    texts = [row["caption"] for row in expected_rows(captioner, "abcd", contents)]
    replies = {}

    def client(number):
        replies[number] = [server.post(contents[(number + i) % 4]).json["rows"][0]["caption"] for i in range(8)]

    threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert replies == {number: [texts[(number + i) % 4] for i in range(8)] for number in range(8)}
    server.until(lambda service: (service.metrics.in_flight, service.model.items, service.admission.buffered) == (0, 0, 0))


def test_a_killed_model_process_costs_no_request(server, captioner, contents):
    """Its images are captioned in the next process, also if that one is killed while it is loading."""
    texts = [row["caption"] for row in expected_rows(captioner, "abcd", contents)]
    replies = {}
    threads = [threading.Thread(target=lambda i=i: replies.update({i: server.post(contents[i])})) for i in range(4)]
    with server.stopped_model():
        for count, thread in enumerate(threads, start=1):
            thread.start()
            server.until(lambda service, count=count: service.model.items == count)
        first = server.service.model.process_id
        os.kill(first, signal.SIGKILL)
    server.until(lambda service: service.model.process_id not in (None, first))
    os.kill(second := server.service.model.process_id, signal.SIGSTOP)
    server.until(lambda service: service.model.process_id == second)
    os.kill(second, signal.SIGKILL)
    for thread in threads:
        thread.join()
    assert {i: reply.json["rows"][0]["caption"] for i, reply in replies.items()} == dict(enumerate(texts))


def test_an_image_whose_process_ends_twice_costs_one_request(artifact, contents):
    """The image is large enough that reading it takes longer than the test needs to kill the process."""
    large = encode(Image.new("RGB", (7000, 7000)), "PNG")
    with served(Settings(job=ModelJob(artifact=str(artifact), threads=1))) as server:
        replies = []
        client = threading.Thread(target=lambda: replies.append(server.post(large)))
        client.start()
        for number in range(2):
            server.until(lambda service: service.model.stage == "ready" and service.model.items == 1)
            os.kill(ended := server.service.model.process_id, signal.SIGKILL)
            server.until(lambda service, ended=ended: service.model.process_id not in (None, ended))
            assert server.service.model.starts == number + 2
        neighbour = server.post(contents[0])
        client.join()
    assert [(reply.status, reply.code) for reply in replies] == [(500, "IMAGE_CRASH")]
    assert neighbour.status == 200


def test_hosts_origins_and_tokens(artifact, contents):
    access = Access(tokens=("first-token", "second-token"), hosts=("shop.example",))
    with served(Settings(job=ModelJob(artifact=str(artifact), threads=1), access=access)) as server:
        for path in ("/healthz", "/readyz", "/"):
            assert server.get(path).status == 200
        for path in ("/v1/info", "/metrics", "/openapi.json"):
            assert (server.get(path).status, server.get(path).code) == (401, "UNAUTHORIZED")
            assert server.get(path, Authorization="Bearer second-token").status == 200
        for header in ("first-token", "Bearer first-toke", "Bearer  ", "Basic first-token", "Bearer é"):
            assert server.post(contents[0], authorization=header.encode()).status == 401
        authorization = "Bearer first-token"
        assert server.post(contents[0], authorization=authorization).status == 200
        for host in ("localhost", "LOCALHOST:80", "127.0.0.1", "[::1]:8000", "192.168.1.7", "shop.example:8000", "shop.example."):
            assert server.post(contents[0], authorization=authorization, host=host).status == 200
        for host in ("evil.example", "shop.example.evil.example", "", "[", "127.0.0.1.evil.example"):
            assert server.post(contents[0], authorization=authorization, host=host).status == 403
        for origin in ("http://evil.example", "null", "http://localhost:1"):
            assert server.post(contents[0], authorization=authorization, host="localhost", origin=origin).status == 403
