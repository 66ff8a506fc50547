"""Limits of time, memory and connections: slow clients, clients that hang up, overload, and a model that does not answer."""

import contextlib
import math
import socket
import threading

import pytest

from tests.toolkit.serve.served import CAPTION, multipart, served
from toolkit.serve.settings import Limits, ModelJob, Settings

HEAD = f"POST {CAPTION} HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"


@pytest.fixture(scope="module")
def job(tiny_artifacts):
    return ModelJob(artifact=str(tiny_artifacts["onnx-fp32"]), threads=1)


@pytest.fixture(scope="module")
def content(drawn_images):
    return drawn_images[0].path.read_bytes()


@pytest.fixture(scope="module")
def server(job):
    limits = Limits(timeout_s=1, head_s=0.5, connections=8, buffered_bytes=100_000, max_wait_s=0.2)
    with served(Settings(job=job, limits=limits)) as running:
        yield running


def idle(server):
    server.until(lambda service: (service.metrics.in_flight, service.model.items, service.admission.buffered) == (0, 0, 0))


@contextlib.contextmanager
def raw(server, text):
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(text.encode())
        yield connection


def received(connection):
    """Everything until the server closes the connection."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65_536):
            parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize(
    "text", ["", "GET /healthz HTTP/1.1\r\nHost: localhost\r\n", "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /"]
)
def test_a_connection_without_a_complete_head_is_closed(server, text):
    with raw(server, text) as connection:
        assert b" 200 " in received(connection) if text.endswith("GET /") else received(connection) == b""


def test_a_body_that_does_not_arrive_is_refused(server):
    with raw(server, HEAD % 1000) as connection:
        connection.sendall(b"only this")
        assert b'"code":"REQUEST_SLOW"' in received(connection)
    idle(server)


@pytest.mark.parametrize("text", ["no http\r\n\r\n", "GET /healthz HTTP/9\r\n\r\n", "GET / HTTP/1.1\r\nA: " + 300_000 * "x"])
def test_what_is_no_request_is_an_error(server, text):
    with raw(server, "") as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(text.encode())
        assert b'"code": "HTTP_INVALID"' in received(connection)


def test_a_model_that_does_not_answer_costs_the_deadline(server, content):
    with server.stopped_model():
        reply = server.post(content)
        assert (reply.status, reply.code) == (504, "DEADLINE_EXCEEDED")
    idle(server)
    assert server.post(content).status == 200


def test_probes_do_not_wait_for_the_model(server, content):
    with server.stopped_model():
        client = threading.Thread(target=server.post, args=(content,))
        client.start()
        server.until(lambda service: service.model.items == 1)
        assert (server.get("/healthz").status, server.get("/readyz").status, server.get("/metrics").status) == (200, 200, 200)
        assert server.service.model.items == 1
        client.join()
    idle(server)


def test_work_of_clients_that_are_gone_is_dropped(server, content):
    with server.stopped_model():
        connections = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(5)]
        for connection in connections:
            connection.sendall((HEAD % len(content)).encode() + content)
        server.until(lambda service: service.model.items == 5)
        for connection in connections:
            connection.close()
        server.until(lambda service: service.metrics.in_flight == 0)
        assert server.service.model.items <= 3  # those that the model process has
    idle(server)
    assert 'status="499"} 5.0' in server.get("/metrics").body.decode()


def test_queued_work_above_the_limit_is_refused_at_once(job, content):
    """The expected wait is 0 while one item runs for longer than usual. A queued item makes it longer than the limit."""
    with served(Settings(job=job, limits=Limits(max_wait_s=0))) as server:
        replies = []
        clients = [threading.Thread(target=lambda: replies.append(server.post(content))) for _ in range(2)]
        with server.stopped_model():
            for number, client in enumerate(clients, start=1):
                server.until(lambda service: service.model.wait_s() == 0)
                client.start()
                server.until(lambda service, number=number: service.model.items == number)
            refused = server.post(content)
            assert (refused.status, refused.code, int(refused.headers["retry-after"]) >= 1) == (429, "OVERLOADED", True)
            assert [server.get(path).status for path in ("/readyz", "/readyz?fail_if_full=1")] == [200, 503]
            assert replies == []
        for client in clients:
            client.join()
        assert [reply.status for reply in replies] == [200, 200]
        idle(server)


def test_a_refused_client_is_given_the_time_until_the_queue_has_room(job, content):
    """16 images with 16 beams take seconds; a request is refused until only `max_wait_s` of that is left."""
    limits = Limits(max_wait_s=0.5, timeout_s=600)
    with served(Settings(job=job, limits=limits)) as server, server.stopped_model():
        body, kind = multipart([("a.png", content)] * 16, [("num_beams", "16")])
        client = threading.Thread(target=server.post, args=(body,), kwargs={"content_type": kind})
        client.start()
        server.until(lambda service: service.model.items == 16)
        most = server.service.model.wait_s() - limits.max_wait_s
        reply = server.post(content)
        least = server.service.model.wait_s() - limits.max_wait_s
        assert (reply.status, reply.code) == (429, "OVERLOADED")
        assert max(1, math.ceil(least)) <= int(reply.headers["retry-after"]) <= max(1, math.ceil(most))
        assert f"try again in {reply.headers['retry-after']} s" in reply.json["error"]
    client.join()


def test_bodies_in_memory_are_bounded(server):
    with raw(server, HEAD % 90_000) as first:
        first.sendall(bytes(80_000))
        server.until(lambda service: service.admission.buffered == 80_000)
        reply = server.post(bytes(50_000))
        assert (reply.status, reply.code) == (429, "OVERLOADED")
    idle(server)


def test_idle_connections_make_room_for_new_ones(server):
    idle_ones = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(50)]
    assert [server.get("/healthz").status for _ in range(5)] == [200] * 5
    for connection in idle_ones:
        connection.close()


def test_a_connection_too_many_is_refused(server):
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(raw(server, HEAD % 1000))
        server.until(lambda service: service.metrics.in_flight == 8)
        answer = received(stack.enter_context(raw(server, "")))
        assert answer.startswith(b"HTTP/1.1 429 ")
        assert b"\r\nretry-after: 1\r\n" in answer
        assert b'"code": "OVERLOADED"' in answer
    idle(server)


def test_the_rest_of_a_refused_body_is_not_read_for_ever(server):
    with raw(server, HEAD % 10**12) as connection:
        assert b'"code":"BODY_TOO_LARGE"' in received(connection)


def test_nothing_is_answered_before_the_check_has_passed(job, content):
    with served(Settings(job=job), wait=False) as server:
        assert server.get("/healthz").status == 200
        for reply in (server.get("/readyz"), server.post(content)):
            assert (reply.status, reply.code, int(reply.headers["retry-after"]) >= 1) == (503, "NOT_READY", True)
        server.until(lambda service: service.model.stage == "ready")
        assert (server.get("/readyz").status, server.post(content).status) == (200, 200)


@pytest.mark.full
def test_a_run_of_many_times_its_usual_time_is_not_alive(job, content):
    with served(Settings(job=job, limits=Limits(timeout_s=60))) as server:
        with server.stopped_model():
            client = threading.Thread(target=server.post, args=(content,))
            client.start()
            server.until(lambda service: service.model.stalled())
            assert server.get("/healthz").status == 503
        client.join()
        assert server.get("/healthz").status == 200
