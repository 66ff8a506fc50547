"""What stands against what: a case of one run and a case of another, with all that a comparison needs of both."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from exporters.gate.intervals import Float64
from toolkit.records.record import PictureQuality, PictureTimes, Record
from toolkit.stats.quality import changes
from toolkit.stats.rows import Row


@dataclass(frozen=True, kw_only=True)
class Side:
    """One case of one run, with one setting."""

    row: Row
    """Of its report."""
    good: Sequence[Record]
    """Its repeats that have figures, times per picture that could be captioned."""
    baseline: Sequence[Record]
    """Likewise of its run's baseline with the same setting."""

    @property
    def quality(self) -> Sequence[PictureQuality]:
        """What was said of each picture; empty where the repeat that kept it failed."""
        return next((record.quality for record in self.good if record.quality), ())

    @property
    def captioned(self) -> list[int]:
        """Places, among all pictures, of those that have times."""
        return [place for place, picture in enumerate(self.quality) if picture.error is None] or list(range(len(self.good[0].times)))


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two sides; A came first."""

    a: Side
    b: Side
    same_pictures: bool

    @cached_property
    def quality(self) -> dict[str, Any]:
        """Changes of scores from A to B on the same pictures; empty where there are none."""
        return changes(self.b.quality, self.a.quality) if self.same_pictures else {}

    def times(self, values: Callable[[PictureTimes], tuple[float, ...]]) -> tuple[Float64, Float64]:
        """Return f64[R,N,K] of both sides; of the same pictures, only those that both could caption."""
        both = set(self.a.captioned) & set(self.b.captioned) if self.same_pictures else None
        return self._of(self.a, values, both), self._of(self.b, values, both)

    @staticmethod
    def _of(side: Side, values: Callable[[PictureTimes], tuple[float, ...]], both: set[int] | None) -> Float64:
        kept = [place for place, picture in enumerate(side.captioned) if both is None or picture in both]
        return np.array([[values(record.times[place]) for place in kept] for record in side.good], dtype=np.float64)
