"""Compare a pair of cases: one change per measure, with its confidence interval and its description in words."""

from dataclasses import dataclass

from exporters.gate.intervals import Change
from exporters.gate.verdict import CANNOT_TELL
from toolkit.compare.case_pair import CasePair
from toolkit.compare.measures import MEASURES, Measure

MIN_CHANGE = 0.0005
"""A smaller relative change is described as "the same": tables show 0.1 %."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """The change of one measure between the cases of a pair."""

    measure: Measure
    a: float | None
    b: float | None
    change: Change

    @property
    def exact(self) -> bool:
        """Whether the change has no uncertainty: a size is counted, not sampled."""
        return self.change.change == self.change.low == self.change.high

    @property
    def clear(self) -> bool | None:
        """Whether the interval excludes zero; None without an interval."""
        low, high = self.change.low, self.change.high
        return None if low is None or high is None else low > 0 or high < 0

    @property
    def text(self) -> str:
        """The change in words."""
        change, low, high = self.change.change, self.change.low, self.change.high
        if change is None:
            return "not measured" if self.a is None or self.b is None else "not compared"
        word = f"{self.measure.words[change > 0]} by {self._amount(abs(change))}"
        if low is None or high is None:
            return f"{word if abs(change) >= MIN_CHANGE else 'the same'} (no interval)"
        if self.exact:
            return word if abs(change) >= MIN_CHANGE else "the same"
        if not self.clear:
            return f"{CANNOT_TELL} [{self._amount(low, '+')}, {self._amount(high, '+')}]"
        near, far = sorted((abs(low), abs(high)))
        return f"{word} [{self._amount(near)}, {self._amount(far)}]"

    def _amount(self, change: float, sign: str = "") -> str:
        digits = 4 if self.measure.absolute else 3
        shown = round(change, digits) + 0.0  # turns -0.0 into 0.0
        return f"{shown:{sign}.4f}" if self.measure.absolute else f"{shown:{sign}.1%}"


def compare(pair: CasePair) -> list[Compared]:
    """Compare the cases of a pair by every measure."""
    return [
        Compared(measure=measure, a=pair.a.row[measure.key], b=pair.b.row[measure.key], change=measure.change(pair)) for measure in MEASURES
    ]
