"""Atomic writes. Temporary files of a killed writer are removed by the next writer, those of a running one are kept."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runtimes.errors import OutputError
from runtimes.storage.atomic_write import free_bytes, locked, move_or_copy, working_folder, write_atomically
from tests.paths import ROOT

MAKER = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from runtimes.storage.atomic_write import locked, working_folder
with {making} as made:
    if made:
        (made / "half").write_bytes(b"x")
    print("made", flush=True)
    sys.stdin.readline()
"""


def names_in(folder):
    return sorted(file.name for file in folder.iterdir())


def maker(making):
    """Start a process that enters a context manager and waits for a line on stdin."""
    process = subprocess.Popen(
        [sys.executable, "-c", MAKER.format(root=str(ROOT), making=making)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "made\n"
    return process


def test_a_file_is_replaced_or_unchanged(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert oct(path.stat().st_mode & 0o777) == "0o644"
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x").touch()
    with pytest.raises(OSError, match=r"[Dd]irectory"):
        write_atomically(tmp_path / "folder", b"three")
    assert names_in(tmp_path) == ["file", "folder"]


def test_a_working_folder_of_a_running_process_is_kept_and_that_of_a_killed_one_is_removed(tmp_path):
    running, killed = (maker(f"working_folder(Path({str(tmp_path)!r}), '.work-')") for _ in range(2))
    (tmp_path / ".worked").mkdir()
    assert len(names_in(tmp_path)) == 3
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    assert len(names_in(tmp_path)) == 3
    with working_folder(tmp_path, ".work-") as folder_a:
        assert list(folder_a.iterdir()) == []
        more = [folder for folder in tmp_path.glob(".work-*") if folder != folder_a]
        assert [names_in(folder) for folder in more] == [["half"]]
    running.communicate("\n")
    assert running.returncode == 0
    assert names_in(tmp_path) == [".worked"]


def test_the_lock_and_temporary_file_of_a_killed_writer_do_not_block_the_next_one(tmp_path):
    output = tmp_path / "file[1].jsonl"
    holder = maker(f"locked(Path({str(output)!r}))")
    with pytest.raises(OutputError, match="another process"), locked(output):
        pass
    (tmp_path / f".{output.name}-0123abcd.tmp").write_bytes(b"half")
    (tmp_path / f".{output.name}-mine").write_bytes(b"somebody's")
    holder.kill()
    holder.wait()
    with locked(output):
        write_atomically(output, b"whole")
    assert names_in(tmp_path) == [f".{output.name}-mine", output.name]


def test_without_file_locks_only_the_clean_up_is_missing(tmp_path):
    (tmp_path / ".work-left").mkdir()
    refusing = (
        "import errno, sys\n"
        "def hook(event, arguments):\n"
        "    if event == 'fcntl.flock':\n"
        "        raise OSError(errno.EBADF, 'Bad file descriptor')\n"
        "sys.addaudithook(hook)\n"
    )
    script = refusing + MAKER.format(root=str(ROOT), making=f"working_folder(Path({str(tmp_path)!r}), '.work-')")
    ended = subprocess.run([sys.executable, "-c", script], input="\n", capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "made\n", "")
    assert names_in(tmp_path) == [".work-left"]


def refused(monkeypatch, number):
    """Make `Path.replace` fail with an error number for files outside of the target's folder."""
    rename = os.replace

    def replace(source, target):
        if Path(source).parent != Path(target).parent:
            raise OSError(number, os.strerror(number))
        rename(source, target)

    monkeypatch.setattr(Path, "replace", lambda source, target: replace(source, target))


@pytest.fixture
def moved(tmp_path):
    """A finished file in one folder, and its target path in another folder, where an older file exists."""
    (tmp_path / "from").mkdir()
    (tmp_path / "to").mkdir()
    source, target = tmp_path / "from" / "new", tmp_path / "to" / "file"
    source.write_bytes(b"new" * 1_000_000)
    target.write_bytes(b"old")
    return source, target


def test_a_file_is_moved(moved):
    source, target = moved
    move_or_copy(source, target)
    assert target.read_bytes() == b"new" * 1_000_000
    assert oct(target.stat().st_mode & 0o777) == "0o644"
    assert not source.exists()


def test_a_file_of_another_file_system_is_copied_beside_its_name_and_renamed(moved, monkeypatch):
    source, target = moved
    refused(monkeypatch, errno.EXDEV)
    with target.open("rb") as reader:  # an open descriptor still reads the old file, since it was replaced and not overwritten
        move_or_copy(source, target)
        assert reader.read() == b"old"
    assert target.read_bytes() == b"new" * 1_000_000
    assert names_in(target.parent) == ["file"]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EBUSY, errno.EIO])
def test_a_file_that_cannot_be_moved_leaves_the_target_unchanged(moved, monkeypatch, number):
    source, target = moved
    refused(monkeypatch, number)
    with pytest.raises(OSError, match=os.strerror(number)):
        move_or_copy(source, target)
    assert target.read_bytes() == b"old"


@pytest.mark.parametrize(("size", "free", "known"), [(100, 40, 40), (100, 0, 0), (0, 0, None), (100, -1, None), (-1, -1, None)])
def test_free_space_that_a_file_system_does_not_report(tmp_path, monkeypatch, size, free, known):
    """Network file systems report a size of 0, or the largest number, which arrives as -1."""
    usage = shutil.disk_usage(tmp_path)._replace(total=size, free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    assert free_bytes(tmp_path) == known
