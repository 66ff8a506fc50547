"""Memory that is available, and memory of a process."""

import os
import resource

import pytest

from runtimes.host.memory import anonymous_bytes, available_bytes, proportional_bytes

GIB = 2**30
MEMINFO = "MemTotal: 8388608 kB\nMemFree: 100 kB\nMemAvailable: 4194304 kB\n"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 4 * GIB),
        ({"memory.max": "max", "memory.current": str(GIB)}, 4 * GIB),
        ({"memory.max": str(3 * GIB), "memory.current": str(GIB)}, 2 * GIB),
        ({"memory.max": str(3 * GIB), "memory.current": str(2 * GIB), "memory.stat": f"anon 5\ninactive_file {GIB}\n"}, 2 * GIB),
        ({"memory.max": str(GIB), "memory.current": str(2 * GIB)}, 0),
        ({"memory.max": str(GIB)}, GIB),
    ],
)
def test_available_memory_is_that_of_the_machine_or_of_the_cgroup(tmp_path, files, expected):
    for name, text in {"proc/meminfo": MEMINFO, **{f"sys/fs/cgroup/{name}": text for name, text in files.items()}}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert available_bytes(tmp_path) == expected


def test_unknown_memory(tmp_path):
    assert (available_bytes(tmp_path), anonymous_bytes(1, tmp_path), proportional_bytes(1, tmp_path)) == (None, None, None)


def test_memory_of_this_process():
    """Compared with the C library's peak, which is at least the current resident memory."""
    block = bytearray(os.urandom(50_000_000))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    anonymous, proportional = anonymous_bytes(os.getpid()), proportional_bytes(os.getpid())
    assert len(block) < anonymous < proportional < 1.01 * peak
