"""`returning_freed_memory`, tested with glibc's count of mapped blocks."""

import subprocess
import sys

import pytest

from runtimes.host.malloc import LOADING_BYTES, RUNNING_BYTES
from tests.paths import ROOT

MAPPED = f"""
import ctypes, sys, threading
sys.path.insert(0, {str(ROOT)!r})
from runtimes.host.malloc import returning_freed_memory

libc = ctypes.CDLL("libc.so.6")
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]

class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]

libc.mallinfo2.restype = Info

size = 1 << 19

def mapped():
    "Return whether a new block is memory-mapped. Each block is larger than the previous ones, which may have left free space in the heap."
    global size
    size *= 2
    before = libc.mallinfo2().hblks
    block = libc.malloc(size)
    found = libc.mallinfo2().hblks > before
    libc.free(block)
    return found

"""
"""It runs in a subprocess, since the threshold belongs to the process."""

IN_TURN = """
seen = [mapped()]
for _ in range(2):
    with returning_freed_memory():
        seen.append(mapped())
    seen.append(mapped())
"""

OVERLAPPING = """
seen, inside, leave = [], threading.Event(), threading.Event()

def other():
    with returning_freed_memory():
        inside.set()
        leave.wait()

thread = threading.Thread(target=other)
thread.start()
inside.wait()
with returning_freed_memory():
    seen.append(mapped())
seen.append(mapped())
leave.set()
thread.join()
seen.append(mapped())
"""

FAILING = """
seen = []
for _ in range(2):
    try:
        with returning_freed_memory(), returning_freed_memory():
            seen.append(mapped())
            raise ValueError
    except ValueError:
        seen.append(mapped())
"""


@pytest.mark.parametrize(
    ("script", "seen"),
    [
        (IN_TURN, [True, True, False, True, False]),
        (OVERLAPPING, [True, True, False]),
        (FAILING, [True, False, True, False]),
    ],
    ids=["in turn", "overlapping", "failing"],
)
def test_blocks_are_mapped_until_the_last_load_ends(script, seen):
    assert (LOADING_BYTES, RUNNING_BYTES) == (256 << 10, 32 << 20)  # the blocks are between them
    ended = subprocess.run([sys.executable, "-c", f"{MAPPED}{script}print(seen)"], capture_output=True, text=True, check=True)
    assert ended.stdout == f"{seen}\n"
