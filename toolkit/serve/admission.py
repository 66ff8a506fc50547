"""Admission of requests: by the waiting time of the queued work, and by the bytes of all bodies in memory."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from toolkit.serve.errors import NotReadyError, OverloadedError
from toolkit.serve.model.supervisor import ModelSupervisor
from toolkit.serve.return_times import ReturnTimes
from toolkit.serve.settings import Limits


class Admission:
    """Refuses requests at once instead of letting them wait for longer than their clients do."""

    def __init__(self, model: ModelSupervisor, limits: Limits) -> None:
        self._model, self._limits = model, limits
        self._returns = ReturnTimes(limits.max_wait_s)
        self.buffered = 0
        """Bytes of all bodies in memory."""

    def check(self) -> None:
        """Refuse a request if the model is not loaded, or the queued work exceeds the limit.

        Raises:
            NotReadyError: The model has not been ready yet.
            OverloadedError: The queued work takes longer than `Limits.max_wait_s`.
        """
        wait_s = self._model.wait_s()
        if self._model.loaded is None:
            raise NotReadyError("the model is being loaded", self._return_s(wait_s))
        if wait_s > self._limits.max_wait_s:
            raise OverloadedError(f"the queued work takes {wait_s:.1f} s", self._return_s(wait_s - self._limits.max_wait_s))

    @contextmanager
    def buffer(self) -> Iterator["Buffer"]:
        """Count the bytes of a body until the request is answered."""
        buffer = Buffer(self)
        try:
            yield buffer
        finally:
            self.buffered -= buffer.bytes

    def reserve(self, count: int) -> None:
        """Count further bytes.

        Raises:
            OverloadedError: Too many bytes are in memory.
        """
        if self.buffered + count > self._limits.buffered_bytes:
            raise OverloadedError(f"bodies of {self.buffered:,} bytes are in memory", self._return_s(self._model.wait_s()))
        self.buffered += count

    def _return_s(self, room_s: float) -> float:
        return self._returns.next(time.monotonic(), room_s, self._model.image_s)


class Buffer:
    """The bytes of one body."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.bytes = 0

    def add(self, count: int) -> None:
        """Count further bytes; see `Admission.reserve`."""
        self._admission.reserve(count)
        self.bytes += count
