"""Return freed memory to the system while a model loads. Without glibc, nothing is changed.

Loading a model frees large temporary copies of its weights. glibc keeps freed blocks below its mmap threshold, and raises the threshold to
32 MB when such blocks are freed. So the copies stay in the process and count towards its peak memory. With a low threshold, the copies are
memory-mapped and unmapped when freed. Afterwards the threshold is set to its maximum, so that runs of the model reuse their blocks. glibc
can neither return the former value nor resume its own adjustment.
"""

import contextlib
import ctypes
import threading
from collections.abc import Iterator

M_MMAP_THRESHOLD = -3
LOADING_BYTES = 256 << 10
RUNNING_BYTES = 32 << 20
"""The maximum of glibc's own adjustment on 64-bit machines."""

_lock = threading.Lock()
_loading = 0
"""Number of running bodies of `returning_freed_memory`; the threshold belongs to the process."""


@contextlib.contextmanager
def returning_freed_memory() -> Iterator[None]:
    """Unmap large freed blocks of all threads while the body runs. If bodies overlap, the last one to end restores the threshold."""
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
