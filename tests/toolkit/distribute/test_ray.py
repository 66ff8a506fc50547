"""Ray runs the shards: the bytes of a run without Ray, also after an actor was killed."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import psutil
import pyarrow.parquet as pq
import pytest

from runtimes.errors import UnavailableError
from tests.images import encode
from tests.soak import photo_image
from tests.toolkit.distribute.runs import bytes_in, run
from toolkit.distribute.ray_scheduler import RayCluster

pytestmark = pytest.mark.full  # starts Ray
ROWS, SIZE = 240, 20
PATIENCE_S = 120


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for number in range(ROWS):
        (folder / f"{number:03}.png").write_bytes(encode(photo_image(number), "PNG"))
    return folder


@pytest.mark.parametrize("address", ["127.0.0.1:9", "127.0.0.1:99999", "nowhere"])
def test_an_address_that_does_not_answer(address):
    with pytest.raises(UnavailableError, match=address):
        RayCluster(address=address, actors=1, threads=1).check()


def actors():
    """Return the processes of actors of this machine."""
    return [process for process in psutil.process_iter(["cmdline"]) if (process.info["cmdline"] or [""])[0].startswith("ray::ShardActor")]


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_another_service_answers(answer):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)
                connection.sendall(answer)

        threading.Thread(target=serve).start()
        with pytest.raises(UnavailableError, match="another service"):
            RayCluster(address=f"127.0.0.1:{listener.getsockname()[1]}", actors=1, threads=1).check()


@pytest.fixture(scope="module")
def artifact(tiny_artifacts):
    return tiny_artifacts["onnx-int8"]


@pytest.fixture(scope="module")
def whole(artifact, images, tmp_path_factory):
    """Name → bytes of the shards of a run without Ray."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    run(artifact, folder, images, shard_size=SIZE)
    return shards_in(folder)


def shards_in(folder):
    return {name: content for name, content in bytes_in(folder).items() if name.endswith(".parquet") and "manifest" not in name}


def start(artifact, images, output):
    """Start the command in a session of its own."""
    command = [
        sys.executable,
        "-m",
        "toolkit.cli",
        "distribute",
        artifact,
        images,
        "--output",
        output,
        "--actors",
        "2",
        "--shard-size",
        SIZE,
    ]
    return subprocess.Popen(
        [*map(str, command), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def until(process, condition):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def test_an_actor_is_killed(artifact, images, whole, tmp_path):
    output = tmp_path / "out"
    process = start(artifact, images, output)
    until(process, lambda: len(list(output.glob("shards/*.parquet"))) >= 2)
    mine = {each.pid for each in psutil.Process(process.pid).children(recursive=True)}
    victims = [actor for actor in actors() if actor.pid in mine]
    victims[0].send_signal(signal.SIGKILL)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert shards_in(output) == whole
    assert sum(pq.read_metadata(file).num_rows for file in output.glob("shards/*.parquet")) == ROWS


@pytest.mark.parametrize("moment", ["Ray starts", "shards are captioned"])
@pytest.mark.parametrize(("number", "send"), [(signal.SIGTERM, os.kill), (signal.SIGTERM, os.killpg), (signal.SIGINT, os.killpg)])
def test_a_signal_ends_the_command_and_its_processes(artifact, images, whole, tmp_path, number, send, moment):
    """A service manager sends SIGTERM to all processes, and a terminal SIGINT. The exit code is that of all commands."""
    output = tmp_path / "out"
    process = start(artifact, images, output)
    driver = psutil.Process(process.pid)
    if moment == "Ray starts":
        until(process, lambda: any("gcs_server" in child.name() for child in driver.children()))
    else:
        until(process, lambda: list(output.glob("shards/*.parquet")))
    others = driver.children(recursive=True)
    send(process.pid, number)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, errors.splitlines()[-1]) == (128 + number, f"Stopped by {number.name}."), errors
    assert "Traceback" not in errors
    _, alive = psutil.wait_procs(others, timeout=PATIENCE_S)
    assert alive == []
    assert shards_in(output).items() <= whole.items()
    again = start(artifact, images, output)
    again.communicate(timeout=PATIENCE_S)
    assert again.returncode == 0
    assert shards_in(output) == whole
    assert list(output.glob("**/.*")) == []
