"""Keep freed memory from staying with the process while a model loads (glibc only; elsewhere nothing is done).

A loading model frees large temporary copies of its weights. glibc keeps freed blocks below its mmap threshold, and raises that threshold up
to 32 MB as such blocks are freed, so the copies stay in the process and count towards its peak. With the threshold held down, they are
mapped and go back at once. Afterwards it is set to its maximum, since blocks of every run must not be mapped afresh each time.
"""

import contextlib
import ctypes
from collections.abc import Iterator

M_MMAP_THRESHOLD = -3
LOADING_BYTES = 256 << 10
RUNNING_BYTES = 32 << 20
"""The most that glibc's own adjustment reaches on 64-bit machines."""


@contextlib.contextmanager
def returning_freed_memory() -> Iterator[None]:
    """Give large freed blocks back to the system while the body runs."""
    try:
        libc = ctypes.CDLL("libc.so.6")
        mallopt, trim = libc.mallopt, libc.malloc_trim
    except (OSError, AttributeError):  # not glibc
        yield
        return
    mallopt(M_MMAP_THRESHOLD, LOADING_BYTES)
    try:
        yield
    finally:
        trim(0)
        mallopt(M_MMAP_THRESHOLD, RUNNING_BYTES)
