"""File systems that refuse locks, permissions, syncs or free-space queries cost a warning, and the output is written.

strace makes the kernel's call fail, as SMB, FUSE, S3 and Lustre mounts do.
"""

import subprocess
import sys

import pytest

from tests.paths import ROOT
from toolkit.packaging.package import package

pytestmark = pytest.mark.full  # needs strace

WRITE = """
import logging, sys
from pathlib import Path
logging.basicConfig(format="%(message)s")
from runtimes.storage.atomic_write import locked, write_atomically
path = Path(sys.argv[1])
with locked(path):
    write_atomically(path, b"finished work")
"""
UNPACK = """
import logging, sys
from pathlib import Path
logging.basicConfig(format="%(message)s")
from runtimes.storage.archive import unpack
unpack(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def run(program, call, error, *arguments):
    trace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:error={error}"]
    return subprocess.run(
        [*trace, sys.executable, "-c", program, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("error", ["EPERM", "ENOSYS", "EINVAL", "EOPNOTSUPP", "ENOLCK"])
@pytest.mark.parametrize(
    ("call", "problem"), [("flock", "cannot be locked"), ("fsync", "cannot be synced"), ("chmod,fchmodat", "permissions cannot be set")]
)
def test_a_refused_call_is_a_warning(tmp_path, call, problem, error):
    if (call, error) == ("fsync", "ENOLCK"):
        error = "EACCES"
    path = tmp_path / "captions.jsonl"
    done = run(WRITE, call, error, path)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert path.read_bytes() == b"finished work"
    assert str(path.parent) in done.stderr
    assert problem in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_content_that_does_not_reach_the_disk_is_an_error(tmp_path, error):
    path = tmp_path / "captions.jsonl"
    done = run(WRITE, "fsync", error, path)
    assert done.returncode == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", ["statfs", "fstatfs", "statfs,fstatfs,chmod,fchmod,fchmodat,fsync,flock"])
def test_a_package_is_unpacked(tiny_artifacts, tmp_path, call):
    archive = tmp_path / "artifact.tar.gz"
    package(tiny_artifacts["onnx-fp32"], archive)
    done = run(UNPACK, call, "ENOSYS", archive, tmp_path / "unpacked")
    assert done.returncode == 0, done.stderr
    names = {file.name for file in tiny_artifacts["onnx-fp32"].iterdir()}
    assert {file.name for file in (tmp_path / "unpacked").iterdir()} >= names - {"manifest.json"}
