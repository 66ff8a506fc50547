"""A short campaign of faults: what `make faults` does at every call. It forks, so it has a process of its own."""

import subprocess
import sys

import pytest


@pytest.mark.full
@pytest.mark.parametrize("commands", ["export", "package,unpack,caption,bench,distribute"])
def test_nothing_is_lost_or_half_written(commands):
    command = [sys.executable, "-m", "tests.faults", "--commands", commands, "--most", "3", "--actions", "kill,fail,full", "--seed", "3"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.stdout.splitlines()[-1].endswith(" points, seed 3: 0 faults"), ended.stdout
    assert ended.returncode == 0
