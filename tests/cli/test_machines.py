"""Streams that cannot encode a caption, signals, users without a home directory, machines without a temporary folder."""

import fcntl
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from tests.paths import ROOT
from toolkit.packaging.package import package

COMMAND = [sys.executable, "-m", "toolkit.cli"]


@pytest.fixture(scope="module")
def artifact(tiny_artifacts):
    return str(tiny_artifacts["onnx-fp32"])


@pytest.fixture
def images(drawn_images, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number, name in enumerate(("a.png", "Ünï 日本 😀.png", "c.png")):
        shutil.copy(drawn_images[number].path, folder / name)
    return folder


def environment(**variables):
    return {**os.environ, "PYTHONPATH": str(ROOT), **variables}


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONIOENCODING": "cp1252"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "utf-8"},
    ],
    ids=str,
)
def test_characters_that_a_stream_cannot_encode_are_escaped(artifact, images, variables):
    missing = str(images / "fehlt 日本.png")
    arguments = ["caption", artifact, str(images), missing]
    for options in ([], ["--json"]):
        done = subprocess.run([*COMMAND, *arguments, *options], env=environment(**variables), capture_output=True, check=False)
        assert done.returncode == 1
        assert b"Traceback" not in done.stderr
        assert b"no such file" in done.stderr
        lines = done.stdout.splitlines()
        assert len(lines) == 3 + bool(options)
        if options:
            encoding = variables.get("PYTHONIOENCODING", "ascii")
            rows = [json.loads(line.decode("utf-8" if encoding == "ascii" else encoding)) for line in lines]  # click prints UTF-8 there
            names = [row["image"].encode("utf-8", "surrogateescape").decode() for row in rows]
            assert names == [*sorted(str(path) for path in images.iterdir()), missing]


def heed_signals():
    """Undo what `nohup make test &` does: it ignores SIGHUP and SIGINT, also in child processes."""
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


@pytest.mark.parametrize(
    ("number", "output"),
    [(signal.SIGTERM, True), (signal.SIGTERM, False), (signal.SIGINT, True), (signal.SIGINT, False), (signal.SIGHUP, True)],
)
def test_signals_end_a_run_with_their_exit_code(artifact, images, tmp_path, number, output):
    os.mkfifo(images / "z.png")  # the run waits here
    target = tmp_path / "captions.jsonl"
    options = ["--output", str(target)] if output else []
    process = subprocess.Popen(
        [*COMMAND, "caption", artifact, str(images), str(images / "z.png"), "--json", "--workers", "0", *options],
        env=environment(PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_signals,
    )
    if output:
        partial = target.with_name("captions.jsonl.partial")
        until = time.monotonic() + 60
        while not (partial.exists() and partial.read_bytes().count(b"\n") == 4):
            assert time.monotonic() < until
            time.sleep(0.01)
    else:
        for _ in range(3):
            assert json.loads(process.stdout.readline())["caption"]
        time.sleep(0.5)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "Traceback" not in errors
    assert errors.splitlines()[-1] == f"Stopped by {number.name}."
    if output:
        assert "stopped with 3 of 4 images done" in errors
        assert partial.exists()


def test_a_closed_terminal_ends_a_run_with_its_exit_code(artifact, images, tmp_path):
    """The last line cannot be written any more."""
    os.mkfifo(images / "z.png")
    target = tmp_path / "captions.jsonl"
    terminal, end = pty.openpty()

    def take_the_terminal():
        heed_signals()
        fcntl.ioctl(end, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        [*COMMAND, "caption", artifact, str(images), str(images / "z.png"), "--json", "--output", str(target)],
        env=environment(),
        stdin=end,
        stdout=end,
        stderr=end,
        start_new_session=True,
        preexec_fn=take_the_terminal,
    )
    os.close(end)
    partial, until = target.with_name("captions.jsonl.partial"), time.monotonic() + 60
    while not (partial.exists() and partial.read_bytes().count(b"\n") > 1):
        assert time.monotonic() < until
        time.sleep(0.01)
    os.close(terminal)
    assert process.wait(timeout=60) == 128 + signal.SIGHUP


def test_a_second_signal_ends_a_clean_up_that_waits_forever(artifact, images):
    """A thread reads a pipe to which nobody writes."""
    os.mkfifo(images / "z.png")
    process = subprocess.Popen(
        [*COMMAND, "caption", artifact, str(images / "z.png"), "--json"], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    reader = os.open(images / "z.png", os.O_WRONLY)  # waits until the command reads
    for _ in range(2):
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
    process.communicate(timeout=60)
    os.close(reader)
    assert process.returncode in (-signal.SIGTERM, 128 + signal.SIGTERM)


LIBRARY = """
import os, signal, sys, time, click
from toolkit import cli

class Thread:
    error = KeyboardInterrupt

    def __del__(self):
        raise KeyError("of a thread that was about to start")

@click.command()
def command():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    except KeyboardInterrupt:
        raise {error}

cli.COMMANDS["doctor"] = (__name__, "")
sys.exit(cli.main(["doctor"]))
"""


@pytest.mark.parametrize(
    "error",
    [
        "KeyboardInterrupt from None",
        "ValueError('generator already executing')",
        "BrokenPipeError(32, 'x')",
        "SystemExit(1) from None",
        "Thread().error",
    ],
)
def test_sigterm_in_a_library_that_raises_another_error(error):
    """Ray replaces the exception of a signal handler by KeyboardInterrupt; a clean-up that is interrupted may fail with any error."""
    command = [sys.executable, "-c", LIBRARY.format(error=error)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (143, "Stopped by SIGTERM.\n")


@pytest.mark.parametrize(("number", "last", "code"), [(signal.SIGTERM, "Stopped by SIGTERM.", 143), (signal.SIGINT, "", 130)])
def test_a_signal_to_process_1(artifact, images, number, last, code):
    """The kernel ignores signals to a process 1 without a handler, as a container has it."""
    os.mkfifo(images / "z.png")
    process = subprocess.Popen(
        [
            "unshare",
            "--pid",
            "--fork",
            "--kill-child",
            *COMMAND,
            "caption",
            artifact,
            str(images),
            str(images / "z.png"),
            "--json",
            "--workers",
            "0",
        ],
        env=environment(PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_signals,
    )
    for _ in range(3):
        process.stdout.readline()
    time.sleep(0.5)  # a signal just before the call that waits for the pipe is handled when the call returns
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=True)
    os.kill(int(children.stdout), number)
    _, errors = process.communicate(timeout=60)
    assert errors.splitlines()[-1].startswith(last)
    assert "Traceback" not in errors
    assert process.returncode == code


def test_a_closed_pipe_ends_a_run_without_a_traceback(artifact, images):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*COMMAND, "caption", artifact, str(images)], env=environment(), stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


NO_TEMPORARY_FOLDER = (
    "import sys, tempfile; tempfile._candidate_tempdir_list = lambda: []; from toolkit.cli import main; main(sys.argv[1:])"
)


@pytest.mark.parametrize("command", ["doctor", "verify", "verify --untrusted", "caption"])
def test_without_a_temporary_folder(artifact, images, command):
    arguments = [*command.split(), artifact, *([str(images)] if command == "caption" else [])]
    done = subprocess.run([sys.executable, "-c", NO_TEMPORARY_FOLDER, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert done.returncode == 0, done.stderr


def test_a_package_on_a_read_only_disk_without_a_temporary_folder(artifact, tmp_path):
    """Unpacking needs space, so the error is one line that names the option."""
    folder = tmp_path / "disk"
    folder.mkdir()
    package(Path(artifact), folder / "artifact.tar.gz")
    mount = f'mount --bind {folder} {folder} && mount -o remount,bind,ro {folder} && exec "$@"'
    verify = [sys.executable, "-c", NO_TEMPORARY_FOLDER, "verify", str(folder / "artifact.tar.gz")]
    done = subprocess.run(["unshare", "-m", "sh", "-c", mount, "sh", *verify], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"Error: {folder}: ")
    assert "--work-dir DIR" in line


@pytest.mark.parametrize("name", ["onnx-fp32", "pytorch-int8"])
def test_an_unknown_user_without_a_home_directory(tiny_artifacts, drawn_images, name):
    """A container that runs as an arbitrary uid, without a line in /etc/passwd and without HOME."""
    bare = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    user = ["unshare", "--user", "--map-user=54321", "--map-group=54321"]
    path = drawn_images[0].path
    done = subprocess.run(
        [*user, *COMMAND, "caption", str(tiny_artifacts[name]), str(path)], env=bare, cwd="/", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{path}\t")


@pytest.mark.full
@pytest.mark.parametrize("batch_size", [1, 2])
def test_an_image_that_hangs_is_an_error_row(artifact, images, tmp_path, batch_size):
    """A pipe without a writer, as a network share that does not answer."""
    os.mkfifo(pipe := tmp_path / "pipe.png")
    output = tmp_path / "captions.jsonl"
    names = [str(images / "a.png"), str(pipe), str(images / "c.png")]
    command = [*COMMAND, "caption", artifact, *names, "--json", "--output", str(output), "--timeout", "5", "--batch-size", str(batch_size)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 1
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["image"] for row in rows] == names
    assert [row.get("code") for row in rows] == [None, "IMAGE_TIMEOUT", None]
    assert "no answer within 5 s" in rows[1]["error"]
    assert subprocess.run([*COMMAND, "caption", artifact, *names, "--timeout", "5"], env=environment(), check=False).returncode == 1


@pytest.mark.parametrize("arguments", [["export", "--list"], ["export", "--list", "--json"]])
def test_a_full_stdout_is_one_line(arguments):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-m", "toolkit.cli", *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "No space left on device" in line
