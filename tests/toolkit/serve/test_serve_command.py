"""The command: it listens, reports, drains on SIGTERM, and ends with one line and code 1 if it cannot serve."""

import os
import shutil
import signal
import socket
import subprocess
import threading
import time

import psutil
import pytest

from runtimes.artifact.folder import open_artifact
from runtimes.storage.archive import unpack
from tests.paths import ROOT
from tests.runtimes.verification.test_verify import with_golden
from tests.toolkit.serve.process import COMMAND, Process
from tests.toolkit.serve.served import PATIENCE_S, multipart
from toolkit.packaging.package import package


@pytest.fixture(scope="module")
def artifact(tiny_artifacts):
    return tiny_artifacts["onnx-fp32"]


def failure(*arguments):
    run = subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=PATIENCE_S)
    return run.returncode, [line for line in run.stderr.splitlines() if not line.startswith("Listening at")], run.stdout


def assert_one_line(result, fact):
    code, lines, output = result
    assert (code, len(lines), output) == (1, 1, "")
    assert lines[0].startswith("Error: ")
    assert fact in lines[0]


def with_a_request_in_flight(artifact, content, *options):
    """Start a server and suspend its model; return both, the client that waits, and the list that gets its reply."""
    serve = Process(artifact, "--threads", "1", *options).until_ready()
    (model,) = psutil.Process(serve.process.pid).children()
    model.suspend()
    replies = []
    client = threading.Thread(target=lambda: replies.append(serve.server.post(content)))
    client.start()
    while b"blip_queued_images 1.0" not in serve.server.get("/metrics").body:
        time.sleep(0.01)
    return serve, model, client, replies


@pytest.mark.full
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["SIGTERM", "SIGHUP"])
def test_a_signal_lets_requests_finish(artifact, drawn_images, number):
    serve, model, client, replies = with_a_request_in_flight(artifact, drawn_images[0].path.read_bytes())
    for process in (serve.process.pid, model.pid):  # a service manager signals both, and so does a terminal that is closed
        os.kill(process, number)
    serve_is_closed(serve.port)
    model.resume()
    client.join()
    code, lines = serve.end()
    assert (replies[0].status, code, [line.partition(":")[0] for line in lines]) == (200, 0, ["Ready"])
    assert not model.is_running()


@pytest.mark.full
def test_a_load_balancer_may_take_its_time(artifact, drawn_images):
    """During --drain-delay, `/readyz` fails and requests are answered; then the server ends with code 0."""
    content = drawn_images[0].path.read_bytes()
    serve = Process(artifact, "--threads", "1", "--drain-delay", "3").until_ready()
    expected = serve.server.post(content).json["rows"]
    serve.process.send_signal(signal.SIGTERM)
    while (reply := serve.server.get("/readyz")).status == 200:
        time.sleep(0.01)
    answered = [serve.server.post(content) for _ in range(10)]
    health = serve.server.get("/healthz").status
    code, lines = serve.end()
    assert (reply.status, reply.code, health) == (503, "NOT_READY", 200)
    assert [(each.status, each.json["rows"]) for each in answered] == [(200, expected)] * 10
    assert (code, [line.partition(":")[0] for line in lines]) == (0, ["Ready"])


def serve_is_closed(port):
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            time.sleep(0.01)
        except ConnectionRefusedError:
            return


@pytest.mark.full
def test_requests_that_are_not_answered_in_time_are_told_in_the_exit_code(artifact, drawn_images):
    serve, _, client, replies = with_a_request_in_flight(artifact, drawn_images[0].path.read_bytes(), "--drain", "0.2")
    serve.process.send_signal(signal.SIGTERM)
    code, lines = serve.end()
    client.join()
    assert (replies[0].status, replies[0].code, code) == (503, "NOT_READY", 1)
    assert "1 requests were not answered" in lines[-1]


@pytest.mark.full
def test_a_second_ctrl_c_answers_requests_with_an_error(artifact, drawn_images):
    serve, _, client, replies = with_a_request_in_flight(artifact, drawn_images[0].path.read_bytes())
    serve.process.send_signal(signal.SIGINT)
    serve_is_closed(serve.port)
    serve.process.send_signal(signal.SIGINT)
    code, lines = serve.end()
    client.join()
    assert (replies[0].status, replies[0].code, code) == (503, "NOT_READY", 1)
    assert "1 requests were not answered" in lines[-1]
    assert not any("Traceback" in line for line in lines)


@pytest.mark.full
def test_nothing_is_written_to_disk(artifact, drawn_images, tmp_path):
    """A full or read-only disk does not concern the server."""
    body, kind = multipart([(f"{i}.png", image.path.read_bytes()) for i, image in enumerate(drawn_images)])
    homes = dict.fromkeys(("HOME", "TMPDIR", "XDG_CACHE_HOME"), str(tmp_path))
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = os.environ | homes | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    serve = Process(artifact, "--threads", "1", cwd=tmp_path, env=environment).until_ready()
    server = psutil.Process(serve.process.pid)
    (model,) = server.children()
    model.suspend()
    replies = []
    client = threading.Thread(target=lambda: replies.append(serve.server.post(body, content_type=kind)))
    client.start()
    while b"blip_queued_images 16.0" not in serve.server.get("/metrics").body:
        time.sleep(0.01)
    opened = [file for process in (server, model) for file in process.open_files() if file.mode != "r"]
    model.resume()
    client.join()
    serve.process.terminate()
    assert (replies[0].status, serve.end()[0], opened, list(tmp_path.iterdir())) == (200, 0, [], [])


def test_a_port_in_use(artifact):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert_one_line(failure(artifact, "--port", port), f"127.0.0.1:{port}")


@pytest.mark.full
def test_a_host_that_is_not_of_this_machine(artifact):
    assert_one_line(failure(artifact, "--host", "192.0.2.1", "--no-token"), "192.0.2.1")


@pytest.mark.full
def test_another_address_than_loopback_needs_a_token(artifact, tmp_path):
    assert_one_line(failure(artifact, "--host", "192.0.2.1"), "--token-file")
    (tmp_path / "tokens").write_text("\n")
    assert_one_line(failure(artifact, "--token-file", tmp_path / "tokens"), "tokens")
    assert_one_line(failure(artifact, "--token-file", tmp_path / "none"), "none")


@pytest.mark.full
def test_an_allowed_host_is_a_name(artifact):
    assert_one_line(failure(artifact, "--allowed-host", "http://captions.example.org"), "--allowed-host http://captions.example.org")


@pytest.mark.full
def test_more_threads_than_cpus(artifact):
    assert_one_line(failure(artifact, "--threads", 10_000), "10000")


@pytest.mark.full
def test_no_artifact(tmp_path):
    assert_one_line(failure(tmp_path / "none", "--port", 0), "none")


@pytest.mark.full
def test_a_damaged_artifact(artifact, tmp_path):
    copy = shutil.copytree(artifact, tmp_path / "damaged")
    decoder = open_artifact(copy).path_of("decoder")
    decoder.write_bytes(b"")
    assert_one_line(failure(copy, "--port", 0), decoder.name)


@pytest.mark.full
def test_a_model_process_that_cannot_start_ends_the_server(artifact, tmp_path):
    """Its import fails three times."""
    (tmp_path / "onnxruntime.py").write_text("import os\nos._exit(7)\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])}
    run = subprocess.run([*COMMAND, str(artifact), "--port", "0"], capture_output=True, text=True, timeout=PATIENCE_S, env=environment)
    assert (run.returncode, run.stderr.count("starting it again")) == (1, 2)
    assert "exit code 7" in run.stderr.splitlines()[-1]


@pytest.mark.full
def test_golden_captions_are_checked_at_the_start(artifact, tmp_path):
    package(artifact, tmp_path / "tiny.tar.gz")
    folder = tmp_path / "tiny"
    unpack(tmp_path / "tiny.tar.gz", folder)
    serve = Process(folder).until_ready()
    check = serve.server.get("/v1/info").json["check"]
    serve.process.terminate()
    assert (check["kind"], check["equal"], serve.end()[0]) == ("golden results", check["results"], 0)

    def other_word(golden, captions):
        captions[0]["token_ids"][2] = 5 if captions[0]["token_ids"][2] != 5 else 6

    with_golden(folder, other_word)
    assert_one_line(failure(folder, "--port", 0), "with 1 beams")
