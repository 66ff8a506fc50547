"""What changed: a pair of sides goes in; one line per measure comes out, with a change, its interval and words for it."""

from dataclasses import dataclass

from exporters.gate.intervals import Change
from toolkit.compare.measures import MEASURES, Measure
from toolkit.compare.sides import Pair

UNCLEAR = "no clear difference"
LEAST = 0.0005
"""A change below is written as none: tables show a tenth of a per cent."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One measure of a pair."""

    measure: Measure
    a: float | None
    b: float | None
    change: Change

    @property
    def certain(self) -> bool:
        """Whether there is nothing to doubt: a size is counted, not sampled."""
        return self.change.change == self.change.low == self.change.high

    @property
    def clear(self) -> bool | None:
        """Whether the interval leaves out no change at all; None without an interval."""
        low, high = self.change.low, self.change.high
        return None if low is None or high is None else low > 0 or high < 0

    @property
    def said(self) -> str:
        """The change in words."""
        change, low, high = self.change.change, self.change.low, self.change.high
        if change is None:
            return "not measured" if self.a is None or self.b is None else "not compared"
        word = f"{self.measure.words[change > 0]} by {self._amount(abs(change))}"
        if low is None or high is None:
            return f"{word if abs(change) >= LEAST else 'the same'} (no interval)"
        if self.certain:
            return word if abs(change) >= LEAST else "the same"
        if not self.clear:
            return f"{UNCLEAR} [{self._amount(low, '+')}, {self._amount(high, '+')}]"
        near, far = sorted((abs(low), abs(high)))
        return f"{word} [{self._amount(near)}, {self._amount(far)}]"

    def _amount(self, change: float, sign: str = "") -> str:
        places = 4 if self.measure.absolute else 3
        shown = round(change, places) + 0.0  # no minus before a zero
        return f"{shown:{sign}.4f}" if self.measure.absolute else f"{shown:{sign}.1%}"


def compare(pair: Pair) -> list[Compared]:
    """Compare a pair by every measure."""
    return [
        Compared(measure=measure, a=pair.a.row[measure.key], b=pair.b.row[measure.key], change=measure.change(pair)) for measure in MEASURES
    ]
