"""`toolkit caption --output --resume`: a killed run is continued, and its output has the same bytes as an unbroken run."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from runtimes.artifact.folder import sha256_of

MAX_WAIT_S = 120
"""Longest wait for an event; then the test fails."""
COMMAND = [sys.executable, "-m", "toolkit.cli", "caption"]


@pytest.fixture(scope="module")
def artifact(tiny_artifacts):
    return str(tiny_artifacts["onnx-int8"])


@pytest.fixture(scope="module")
def images(drawn_images, tmp_path_factory):
    """A folder with 60 files: the 8th is a truncated image, the 31st is a text file."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(60):
        shutil.copy(drawn_images[number % 16].path, folder / f"{number:02}.png")
    (folder / "07.png").write_bytes((folder / "07.png").read_bytes()[:-200])
    (folder / "30.png").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    """A named pipe without a writer: a run that reads it as an image waits until it is killed."""
    pipe = tmp_path_factory.mktemp("pipe") / "pipe.png"
    os.mkfifo(pipe)
    return pipe


@pytest.fixture
def output(tmp_path):
    return tmp_path / "captions.jsonl"


def start(*arguments):
    """Start the command with the default handler of SIGINT; children of a shell's background job would ignore the signal."""
    default_sigint = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    return subprocess.Popen([*COMMAND, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **default_sigint)


def run(*arguments):
    process = start(*arguments)
    stdout, stderr = process.communicate()
    assert "Traceback" not in stderr
    return process.returncode, stdout, stderr.splitlines()


def names_in(folder):
    return sorted(file.name for file in folder.iterdir())


def wait_until(condition):
    until = time.monotonic() + MAX_WAIT_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.002)


def partial(output):
    return output.with_name(output.name + ".partial")


def lines_in(file):
    return file.read_bytes().count(b"\n") if file.exists() else 0


def kill_after(process, output, lines):
    """Kill a run with SIGKILL when its journal has that many lines."""
    wait_until(lambda: lines_in(partial(output)) >= lines)
    process.kill()
    process.communicate()


@pytest.fixture(scope="module")
def unbroken(artifact, images, tmp_path_factory):
    """Batch size → output bytes of an unbroken run."""
    made = {}
    for size in (1, 4):
        file = tmp_path_factory.mktemp("unbroken") / "captions.jsonl"
        code, stdout, errors = run(artifact, images, "--json", "--output", file, "--batch-size", size)
        assert (code, stdout, errors[-1]) == (1, "", "Error: 2 of 60 images could not be captioned")
        assert names_in(file.parent) == ["captions.jsonl", "captions.jsonl.meta"]
        made[size] = file.read_bytes()
    return made


@pytest.mark.parametrize("size", [1, pytest.param(4, marks=pytest.mark.full)])
def test_killed_and_resumed_gives_the_bytes_of_an_unbroken_run(artifact, images, pipe, unbroken, output, size):
    command = [artifact, images, "--json", "--output", output, "--batch-size", size, "--resume"]
    for lines in (9, 40):
        kill_after(start(*command, pipe), output, lines)
        assert not output.exists()
        for line in partial(output).read_bytes().splitlines(keepends=True)[:-1]:
            json.loads(line)
    code, _, errors = run(*command)
    assert (code, errors[-1]) == (1, "Error: 2 of 60 images could not be captioned")
    assert output.read_bytes() == unbroken[size]
    assert names_in(output.parent) == ["captions.jsonl", "captions.jsonl.meta"]

    again = run(*command)  # nothing to do
    assert again == (1, "", ["Error: 2 of 60 images could not be captioned"])
    assert output.read_bytes() == unbroken[size]


@pytest.mark.full
def test_text_lines_are_resumed_too(artifact, images, pipe, output):
    whole = output.with_name("whole")
    run(artifact, images, "--output", whole)
    kill_after(start(artifact, images, pipe, "--output", output), output, 20)
    assert run(artifact, images, "--output", output, "--resume")[0] == 1
    assert output.read_bytes() == whole.read_bytes()


def test_an_unfinished_run_is_neither_overwritten_nor_continued_with_other_settings(artifact, tiny_artifacts, images, pipe, output):
    command = [artifact, images, "--json", "--output", output]
    kill_after(start(*command, pipe), output, 20)
    kept = partial(output).read_bytes()
    (error,) = run(*command)[2]
    assert [fact for fact in (str(partial(output)), "--resume", "--overwrite") if fact not in error] == []
    code, stdout, errors = run(*command, "--resume", "--num-beams", 3, "--prompt", "a picture of", "--max-pixels", 1000)
    assert (code, len(errors), json.loads(stdout)["code"]) == (1, 1, "REQUEST_INVALID")
    assert errors[0].startswith(f"Error: {partial(output)}: ")
    names = [part.split()[0] for part in errors[0].partition("(")[2].split("; ")]
    assert names == ["prompt", "num_beams", "max_pixels"]
    other = run(tiny_artifacts["onnx-fp32"], *command[1:], "--resume")
    assert "(artifact '" in other[2][0]
    assert partial(output).read_bytes() == kept
    assert not output.exists()
    code, _, errors = run(artifact, images / "00.png", "--json", "--output", output, "--overwrite")
    assert (code, errors, lines_in(output), names_in(output.parent)) == (0, [], 1, [output.name, f"{output.name}.meta"])


def test_a_resumed_run_of_other_images_does_not_change_a_finished_output(artifact, images, output):
    assert run(artifact, images / "00.png", "--json", "--output", output)[0] == 0
    kept = output.read_bytes()
    for more in ([], ["--resume"]):
        code, _, errors = run(artifact, images, "--json", "--output", output, *more)
        assert (code, len(errors)) == (1, 1)
        assert errors[0].startswith(f"Error: {output}: ")
        assert "--overwrite" in errors[0]
        assert ("other images" in errors[0]) == bool(more)
    assert output.read_bytes() == kept


@pytest.mark.full
def test_an_image_that_changed_since_is_captioned_again(artifact, images, pipe, output, tmp_path, drawn_images):
    folder = Path(shutil.copytree(images, tmp_path / "copies"))
    command = [artifact, folder, "--json", "--output", output, "--resume"]
    kill_after(start(*command, pipe), output, 40)
    shutil.copy(drawn_images[9].path, folder / "07.png")
    (folder / "61.png").write_bytes((folder / "00.png").read_bytes())
    assert run(*command)[0] == 1
    rows = [json.loads(line) for line in output.read_bytes().splitlines()]
    assert [Path(row["image"]).name for row in rows] == names_in(folder)
    assert rows[7]["caption"] == rows[9]["caption"]
    assert [Path(row["image"]).name for row in rows if "error" in row] == ["30.png"]


def test_two_runs_into_one_output(artifact, images, pipe, output):
    first = start(artifact, images, pipe, "--json", "--output", output)
    wait_until(partial(output).exists)
    second = run(artifact, images, "--json", "--output", output, "--resume")
    (error,) = second[2]
    assert error.startswith(f"Error: {output}: ")
    assert "another process" in error
    first.kill()
    first.communicate()


def test_after_ctrl_c_a_warning_names_resume(artifact, images, pipe, output):
    process = start(artifact, images, pipe, "--json", "--output", output)
    wait_until(lambda: lines_in(partial(output)) == 61)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    warning, stopped = [line for line in errors.splitlines() if line and not line.startswith("Error: ")]
    assert [fact for fact in ("WARNING ", "60 of 61", "--resume") if fact not in warning] == []
    assert stopped == "Stopped by SIGINT."


def test_a_killed_run_leaves_no_process(artifact, images, pipe, output):
    """The captioning subprocess is waiting for an image when its parent is killed, and ends too."""
    process = start(artifact, images, pipe, "--json", "--output", output)
    wait_until(lambda: lines_in(partial(output)) > 10)
    (worker,) = psutil.Process(process.pid).children()
    process.kill()
    process.communicate()
    worker.wait(timeout=60)


def test_a_full_disk_keeps_the_captions_so_far(artifact, images, unbroken, output):
    command = ["caption", artifact, str(images), "--json", "--output", str(output), "--resume"]
    for room in (2000, 8000):
        limited = (
            f"import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room}));"
            "from toolkit.cli import main; main(sys.argv[1:])"
        )
        ended = subprocess.run([sys.executable, "-c", limited, *command], capture_output=True, text=True, check=False)
        assert ended.returncode == 1
        assert f"Error: {output}: " in ended.stderr
        assert "File too large" in ended.stderr
        assert not output.exists()
        assert partial(output).read_bytes().endswith(b"}\n") or partial(output).stat().st_size == room
    assert run(*command[1:])[0] == 1
    assert output.read_bytes() == unbroken[1]


class TestAnImageThatCrashesItsProcess:
    """The test kills the process as soon as it has opened the image, which takes seconds to decode."""

    @pytest.fixture
    def folder(self, drawn_images, tmp_path):
        folder = tmp_path / "images"
        folder.mkdir()
        for number in range(12):
            shutil.copy(drawn_images[number].path, folder / f"{number:02}.png")
        (folder / "05.pgm").write_bytes(b"P2 1900 2000 255\n" + b"0 " * (1900 * 2000))  # Pillow decodes such numbers in Python: 7 s
        return folder

    def kill_readers(self, suffix, supervisor, times=99):
        """Kill each child of the supervisor that has a file with this suffix open; return the number of killed processes."""
        killed = set()
        while supervisor.poll() is None and len(killed) < times:
            for child in psutil.Process(supervisor.pid).children():
                try:
                    open_files = {str(link.readlink()) for link in Path(f"/proc/{child.pid}/fd").iterdir()}
                except OSError:
                    continue
                if any(name.endswith(suffix) for name in open_files) and child.pid not in killed:
                    killed.add(child.pid)
                    os.kill(child.pid, signal.SIGSEGV)
            time.sleep(0.002)
        return len(killed)

    @pytest.mark.parametrize("size", [1, pytest.param(3, marks=pytest.mark.full)])
    def test_it_is_an_error_and_the_others_are_captioned(self, artifact, folder, output, size):
        process = start(artifact, folder, "--json", "--output", output, "--batch-size", size)
        times = 2 if size == 1 else 3
        assert self.kill_readers(".pgm", process, times) == times
        _, errors = process.communicate()
        rows = [json.loads(line) for line in output.read_bytes().splitlines()]
        assert [Path(row["image"]).name for row in rows] == names_in(folder)
        (crashed,) = [row for row in rows if "error" in row]
        error = crashed.pop("error")
        assert crashed == {"image": str(folder / "05.pgm"), "code": "IMAGE_CRASH", "sha256": sha256_of(folder / "05.pgm")}
        assert error.startswith(f"{folder / '05.pgm'}: ")
        assert "SIGSEGV" in error
        assert errors.splitlines() == [f"Error: {error}", "Error: 1 of 13 images could not be captioned"]
        (folder / "05.pgm").write_bytes(b"")
        whole = output.with_name("whole.jsonl")
        run(artifact, folder, "--json", "--output", whole, "--batch-size", size)
        others = [json.loads(line) for line in whole.read_bytes().splitlines()]
        if size == 1:  # in a batch of three, the two neighbours of the crashed image ran in another batch
            assert [row for row in rows if row != crashed] == [row for row in others if "error" not in row]

    @pytest.mark.full
    def test_many_crashes_are_an_error_of_the_artifact_and_not_of_images(self, artifact, folder, output):
        for number in range(6):
            os.link(folder / "05.pgm", folder / f"00-{number}.pgm")
        process = start(artifact, folder, "--json", "--output", output)
        assert (
            self.kill_readers(".pgm", process) == 7
        )  # runs of a whole batch list and retries of one image alternate until five images have crashed
        _, errors = process.communicate()
        last = errors.splitlines()[-1]
        assert last.startswith(f"Error: {artifact}: ")
        assert "SIGSEGV" in last
        assert lines_in(partial(output)) == 1

    @pytest.mark.full
    def test_a_single_crash_is_retried(self, artifact, folder, output):
        """The process may have been killed for another reason, such as memory: retried alone, the image is captioned."""
        (folder / "05.pgm").write_bytes(b"P2 1200 1000 255\n" + b"0 " * 1_200_000)  # long enough to be seen on a busy machine
        process = start(artifact, folder, "--json", "--output", output)
        assert self.kill_readers(".pgm", process, 1) == 1
        assert process.communicate()[1] == ""
        assert process.returncode == 0
        assert lines_in(output) == 13


def test_an_artifact_that_crashes_every_process_is_an_error_of_the_artifact(artifact, images, output):
    process = start(artifact, images, "--json", "--output", output)
    while process.poll() is None:
        for child in psutil.Process(process.pid).children():
            os.kill(child.pid, signal.SIGILL)
        time.sleep(0.01)
    _, errors = process.communicate()
    assert process.returncode == 1
    assert errors.startswith(f"Error: {artifact}: ")
    assert "SIGILL" in errors
    assert names_in(output.parent) == []
