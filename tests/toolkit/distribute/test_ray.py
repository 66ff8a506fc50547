"""Ray runs the shards: the bytes of a run without Ray, also after an actor was killed."""

import os
import signal
import subprocess
import sys
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


def test_an_actor_is_killed(tiny_artifacts, images, tmp_path):
    artifact = tiny_artifacts["onnx-int8"]
    run(artifact, tmp_path / "whole", images, shard_size=SIZE)
    output = tmp_path / "out"
    command = [sys.executable, "-m", "toolkit.cli", "distribute", str(artifact), str(images), "--output", str(output), "--actors", "2"]
    process = subprocess.Popen(
        [*command, "--shard-size", str(SIZE), "--json"], stdout=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    until = time.monotonic() + 120
    while len(list(output.glob("shards/*.parquet"))) < 2:
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.01)
    mine = {each.pid for each in psutil.Process(process.pid).children(recursive=True)}
    victims = [actor for actor in actors() if actor.pid in mine]
    victims[0].send_signal(signal.SIGKILL)
    process.communicate(timeout=120)
    assert process.returncode == 0
    files = {name: content for name, content in bytes_in(output).items() if name.endswith(".parquet") and "manifest" not in name}
    assert files == {name: content for name, content in bytes_in(tmp_path / "whole").items() if name in files}
    assert sum(pq.read_metadata(file).num_rows for file in output.glob("shards/*.parquet")) == ROWS
