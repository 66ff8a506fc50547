"""Measured seconds of a run, by its number of decoder rows: the basis of waiting times and of the watchdog."""

WEIGHT = 0.1
"""Weight of the last run in the moving average."""


class UsualTimes:
    """Moving averages of the seconds of an image.

    Args:
        run_s: Seconds of an image with one decoder row, from the check at the start.
    """

    def __init__(self, run_s: float) -> None:
        self._seconds = {1: run_s}

    def add(self, rows: int, seconds: float) -> None:
        """Record an image."""
        usual = self._seconds.get(rows)
        self._seconds[rows] = seconds if usual is None else (1 - WEIGHT) * usual + WEIGHT * seconds

    def of(self, rows: int) -> float:
        """Return the usual seconds of an image. Before the first run with this number of rows, it is in proportion to them."""
        return self._seconds.get(rows, rows * self._seconds[1])
