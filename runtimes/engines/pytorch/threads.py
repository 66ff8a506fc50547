"""Set torch's number of CPU threads for one call.

torch has one number per calling thread (OpenMP's), and one for threads that have not used torch yet. `torch.set_num_threads` sets both. All
sessions of a process, and the program around them, share these numbers.
"""

import threading

import torch


class CpuThreads:
    """Context manager that sets the number of CPU threads and restores the former number. Bodies in several threads may overlap."""

    _lock = threading.Lock()
    _bodies = 0
    """Number of bodies that are running."""
    _before = 0
    """The number of threads before the first of the running bodies."""

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
    if torch.get_num_threads() != count:  # setting the number clears oneDNN's cache of compiled convolutions
        torch.set_num_threads(count)
