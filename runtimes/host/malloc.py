"""Return freed memory to the system while a model loads (glibc only; elsewhere nothing is done).

A loading model frees large temporary copies of its weights. glibc keeps freed blocks below its mmap threshold, and raises that threshold
up to 32 MB as such blocks are freed, so the copies stay in the process and count towards its peak. With a low threshold, they are mapped,
and unmapped at once. Afterwards the threshold is set to its maximum, since blocks of every run must not be mapped afresh each time: glibc
has no way to read the former value, nor to resume its own adjustment.
"""

import contextlib
import ctypes
import threading
from collections.abc import Iterator

M_MMAP_THRESHOLD = -3
LOADING_BYTES = 256 << 10
RUNNING_BYTES = 32 << 20
"""The most that glibc's own adjustment reaches on 64-bit machines."""

_lock = threading.Lock()
_loading = 0
"""Bodies of `returning_freed_memory` that run now; the threshold belongs to the whole process."""


@contextlib.contextmanager
def returning_freed_memory() -> Iterator[None]:
    """Unmap large freed blocks while the body runs, in all threads; where several bodies overlap, until the last one ends."""
    global _loading
    try:
        libc = ctypes.CDLL("libc.so.6")
        mallopt, trim = libc.mallopt, libc.malloc_trim
    except (OSError, AttributeError):  # not glibc
        yield
        return
    with _lock:
        _loading += 1
        mallopt(M_MMAP_THRESHOLD, LOADING_BYTES)
    try:
        yield
    finally:
        trim(0)
        with _lock:
            _loading -= 1
            if not _loading:
                mallopt(M_MMAP_THRESHOLD, RUNNING_BYTES)
