"""torch's number of CPU threads, set for one call.

torch keeps one number per calling thread (OpenMP's) and one for threads that have not used torch yet; `torch.set_num_threads` sets both.
Sessions with different numbers, and the program that they are part of, share both.
"""

import threading

import torch


class CpuThreads:
    """Gives the body a number of CPU threads, and its thread and the process the former one afterwards. Bodies may overlap."""

    _lock = threading.Lock()
    _bodies = 0
    _before = 0
    """What the process had before the first of the bodies that run now."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __enter__(self) -> None:
        with self._lock:
            if CpuThreads._bodies == 0:
                CpuThreads._before = torch.get_num_threads()
            CpuThreads._bodies += 1
        _set(self.count)

    def __exit__(self, *_: object) -> None:
        _set(CpuThreads._before)
        with self._lock:
            CpuThreads._bodies -= 1


def _set(count: int) -> None:
    if torch.get_num_threads() != count:  # setting it makes oneDNN forget its compiled convolutions
        torch.set_num_threads(count)
