"""Count rows while they are made: rate, remaining time, and the limit of errors."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from runtimes.errors import TooManyErrorsError

WINDOW_S: Final = 300.0
"""The rate is that of the last minutes, so that it follows a change."""
EVERY_S: Final = 10.0
FIRST_ROWS: Final = 100
"""If so many rows at the start are all errors, the inputs or the settings are wrong."""


@dataclass(frozen=True, kw_only=True)
class MaxErrors:
    """Limit of error rows: a number, or a share of all rows."""

    number: int | None = None
    share: float | None = None

    @classmethod
    def parse(cls, text: str) -> "MaxErrors":
        """Read `25` or `5%`.

        Raises:
            ValueError: The text is neither.
        """
        if text.endswith("%"):
            share = float(text[:-1]) / 100
            if not 0 <= share <= 1:
                raise ValueError(text)
            return cls(share=share)
        if (number := int(text)) < 0:
            raise ValueError(text)
        return cls(number=number)

    def allowed(self, rows: int) -> int:
        """Return the number of error rows that are allowed among that many rows."""
        if self.share is not None:
            return int(self.share * rows)
        return rows if self.number is None else self.number


@dataclass(frozen=True, kw_only=True)
class News:
    """Rows that were made since the last report."""

    rows: int
    errors: tuple[tuple[str, str], ...] = ()
    """Code and message of each error row among them."""


class Tally:
    """The rows of a run.

    Args:
        total: Number of rows of this part of the run.
        done: Rows that earlier runs finished.
        failed: Error rows among them.
        limit: Limit of error rows.
        show: Called with a line of progress from time to time.
    """

    def __init__(self, total: int, done: int, failed: int, limit: MaxErrors, show: Callable[[str], None]) -> None:
        self.total, self.done, self.failed = total, done, failed
        self.added = 0
        """Rows of this run."""
        self._limit, self._show, self._limited = limit.allowed(total), show, limit != MaxErrors()
        self._started = self._shown = time.monotonic()
        self._samples = deque([(self._started, 0)])
        self._codes: set[str] = set()

    def add(self, news: News) -> None:
        """Count rows. Show the progress if it is time, and the first error of each code.

        Raises:
            TooManyErrorsError: There are too many error rows.
        """
        for code, error in news.errors:
            if code not in self._codes:
                self._codes.add(code)
                self._show(f"first {code}: {error}")
        self.done, self.failed, self.added = self.done + news.rows, self.failed + len(news.errors), self.added + news.rows
        now = time.monotonic()
        if now - self._samples[-1][0] >= 1:
            self._samples.append((now, self.added))
            while now - self._samples[0][0] > WINDOW_S and len(self._samples) > 2:
                self._samples.popleft()
        if now - self._shown >= EVERY_S:
            self._shown = now
            self._show(self.line())
        if self.failed > self._limit:
            raise TooManyErrorsError(self.failed, self._limit)
        if not self._limited and self.done >= FIRST_ROWS and self.failed == self.done:
            raise TooManyErrorsError(self.failed, None)

    @property
    def images_per_s(self) -> float:
        """Rows per second of the last minutes."""
        since, before = self._samples[0]
        return (self.added - before) / max(time.monotonic() - since, 1e-9)

    def line(self) -> str:
        """Return the progress as one line."""
        rate = self.images_per_s
        left = f"{duration(max(0, self.total - self.done) / rate)} left" if rate > 0 else "no image yet"
        return f"{self.done:,} of {self.total:,} images, {self.failed:,} errors, {rate:.3g} images/s, {left}"


def duration(seconds: float) -> str:
    """Return a duration with its two largest units, for example `2 d 9 h`."""
    parts: list[str] = []
    left = round(seconds)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        amount, left = divmod(left, size)
        if amount or (unit == "s" and not parts):
            parts.append(f"{amount} {unit}")
    return " ".join(parts[:2])
