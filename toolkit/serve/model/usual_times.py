"""Measured seconds of a run, by what the request asks for: the basis of waiting times and of the watchdog."""

from typing import Final

from toolkit.serve.run_size import RunSize

WEIGHT: Final = 0.1
"""Weight of the last run in the moving average."""
USUAL_TOKENS: Final = 10
"""Tokens of a caption. A size that was not measured is expected to take half of the usual time, and the other half for each 10 tokens."""


class UsualTimes:
    """Moving averages of the seconds of an image.

    Args:
        run_s: Seconds of an image with one decoder row and no least length, from the check at the start.
    """

    def __init__(self, run_s: float) -> None:
        self._seconds = {RunSize(): run_s}

    def add(self, size: RunSize, seconds: float) -> None:
        """Record an image."""
        usual = self._seconds.get(size)
        self._seconds[size] = seconds if usual is None else (1 - WEIGHT) * usual + WEIGHT * seconds

    def of(self, size: RunSize) -> float:
        """Return the usual seconds of an image. Before the first run of this size, it is in proportion to rows and tokens."""
        return self._seconds.get(size, size.rows * (1 + max(1.0, size.tokens / USUAL_TOKENS)) / 2 * self._seconds[RunSize()])
