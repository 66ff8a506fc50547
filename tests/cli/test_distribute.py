"""`toolkit distribute`: exit codes, the summary, and errors in one line."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from tests.toolkit.distribute.s3_server import KEYS, s3_server
from toolkit.cli import main


def run(*arguments):
    result = CliRunner().invoke(main, ["distribute", *map(str, arguments)], prog_name="toolkit")
    assert "Traceback" not in result.stderr
    return result


@pytest.fixture
def images(drawn_images, tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(4):
        shutil.copy(drawn_images[number].path, tmp_path / "images" / f"{number}.png")
    return tmp_path / "images"


def test_exit_codes_and_the_summary(artifact, images, tmp_path):
    command = [artifact, images, "--output", tmp_path / "out", "--part", "1/1", "--actors", "1", "--json", "--shard-size", "2"]
    first = run(*command)
    summary = json.loads(first.stdout)
    assert (first.exit_code, summary["rows"], summary["shards"], summary["errors"]) == (0, 4, 2, {})
    (tmp_path / "images" / "4.png").write_text("no image")
    second = run(*command, "--extend")
    assert (second.exit_code, json.loads(second.stdout)["errors"]) == (1, {"IMAGE_UNREADABLE": 1})
    assert "1 of 5 images" in second.stderr
    again = run(*command, "--retry-errors", "IMAGE_UNREADABLE")
    assert (again.exit_code, json.loads(again.stdout)["new_rows"]) == (1, 1)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--part", "0/3"], "3/16"),
        (["--part", "x"], "3/16"),
        (["--max-errors", "101%"], "5%"),
        (["--max-errors", "many"], "25"),
        (["--part", "1/1", "--address", "host:1"], "--address"),
        (["--retry-errors", "NO_CODE"], "NO_CODE"),
    ],
)
def test_a_mistake_in_the_command_line(artifact, images, tmp_path, options, problem):
    result = run(artifact, images, "--output", tmp_path / "out", *options)
    assert result.exit_code == 2
    assert problem in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["none/*.tar", "--part", "1/1"], "DATASET_UNUSABLE"),
        (["photo.png", "--address", "127.0.0.1:9"], "UNAVAILABLE"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(artifact, tmp_path, monkeypatch, options, code):
    monkeypatch.chdir(tmp_path)
    result = run(artifact, *options, "--output", "out", "--json")
    assert (result.exit_code, json.loads(result.stdout)["code"]) == (1, code)
    assert len(result.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def refused(*arguments):
    """Return the code of the only line of stderr; stdout has the same message as JSON."""
    result = run(*arguments, "--json")
    error = json.loads(result.stdout)
    assert (result.exit_code, result.stderr) == (1, f"Error: {error['error']}\n")
    return error["code"], error["error"]


def test_a_column_that_is_not_there(artifact, drawn_images, tmp_path):
    table = pa.table({"picture": [image.path.read_bytes() for image in drawn_images[:2]]})
    pq.write_table(table, tmp_path / "a.parquet")
    code, problem = refused(artifact, tmp_path / "a.parquet", "--output", tmp_path / "out", "--part", "1/1")
    assert (code, "picture" in problem, "--column" in problem) == ("DATASET_UNUSABLE", True, True)
    assert not (tmp_path / "out").exists()
    assert run(artifact, tmp_path / "a.parquet", "--output", tmp_path / "out", "--part", "1/1", "--column", "picture").exit_code == 0


def test_a_folder_of_another_run(artifact, images, tmp_path):
    command = [artifact, images, "--output", tmp_path / "out", "--part", "1/1", "--actors", "1"]
    assert run(*command).exit_code == 0
    before = {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()}
    (tmp_path / "more").mkdir()
    shutil.copy(images / "0.png", tmp_path / "more" / "9.png")
    for change in (["--max-length", "5"], ["--shard-size", "2"], [tmp_path / "more"]):
        code, problem = refused(*command, *change)
        assert code == "REQUEST_INVALID", problem
        assert str(tmp_path / "out") in problem
    assert {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()} == before


@pytest.mark.full  # a server process
def test_a_bucket_that_is_not_there(artifact, images, tmp_path, monkeypatch):
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    with s3_server() as endpoint:
        options = ["--part", "1/1", "--s3-endpoint", endpoint]
        code, problem = refused(artifact, "s3://none/images", "--output", tmp_path / "out", *options)
        assert (code, "none" in problem) == ("DATASET_UNUSABLE", True)
        code, problem = refused(artifact, images, "--output", "s3://none/out", *options)
        assert (code, "none" in problem) == ("OUTPUT_UNWRITABLE", True)
    assert not (tmp_path / "out").exists()


def test_a_missing_artifact(images, tmp_path):
    result = run(tmp_path / "none", images, "--output", tmp_path / "out", "--part", "1/1", "--json")
    assert (result.exit_code, json.loads(result.stdout)["code"]) == (1, "ARTIFACT_MISSING")
    assert not (tmp_path / "out").exists()


@pytest.mark.full  # images that take seconds
def test_an_image_that_stalls_is_an_error_row_and_ctrl_c_keeps_finished_shards(artifact, images, tmp_path):
    pixels = " ".join(["7"] * 3 * 1800 * 1000)
    (images / "slow.ppm").write_text(f"P3 1800 1000 255\n{pixels}\n")  # decoded in Python, at about 2 s per million pixels
    output = tmp_path / "out"
    command = [sys.executable, "-m", "toolkit.cli", "distribute", artifact, images, "--output", output, "--part", "1/1", "--actors", "1"]
    command += ["--shard-size", "4", "--timeout", "0.5", "--json"]
    default = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    process = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ), **default
    )
    until = time.monotonic() + 120
    while not (output / "shards" / "000000.json").exists():
        assert time.monotonic() < until
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in errors) == (130, False)
    assert [file.name for file in sorted((output / "shards").iterdir())] == ["000000.json", "000000.parquet"]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
    assert (result.returncode, json.loads(result.stdout)["errors"]) == (1, {"IMAGE_TIMEOUT": 1})
    assert pq.read_table(output / "shards" / "000001.parquet").column("code").to_pylist() == ["IMAGE_TIMEOUT"]
