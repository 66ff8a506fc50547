"""What stands against what: a case of one run and a case of another, with all that a comparison needs of both."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from exporters.gate.intervals import Float64
from toolkit.records.record import ImageQuality, ImageTimes, Record
from toolkit.stats.quality import changes
from toolkit.stats.rows import Row


@dataclass(frozen=True, kw_only=True)
class Side:
    """One case of one run, with one setting."""

    row: Row
    """Of its report."""
    good: Sequence[Record]
    """Its repeats that have figures, times per image that could be captioned."""
    baseline: Sequence[Record]
    """Likewise of its run's baseline with the same setting."""

    @property
    def quality(self) -> Sequence[ImageQuality]:
        """What was said of each image; empty where the repeat that kept it failed."""
        return next((record.quality for record in self.good if record.quality), ())

    @property
    def captioned(self) -> list[int]:
        """Places, among all images, of those that have times."""
        return [place for place, image in enumerate(self.quality) if image.error is None] or list(range(len(self.good[0].times)))


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two sides; A came first."""

    a: Side
    b: Side
    same_images: bool

    @cached_property
    def quality(self) -> dict[str, Any]:
        """Changes of scores from A to B on the same images; empty where there are none."""
        return changes(self.b.quality, self.a.quality) if self.same_images else {}

    def times(self, values: Callable[[ImageTimes], tuple[float, ...]]) -> tuple[Float64, Float64]:
        """Return f64[R,N,K] of both sides; of the same images, only those that both could caption."""
        both = set(self.a.captioned) & set(self.b.captioned) if self.same_images else None
        return self._of(self.a, values, both), self._of(self.b, values, both)

    @staticmethod
    def _of(side: Side, values: Callable[[ImageTimes], tuple[float, ...]], both: set[int] | None) -> Float64:
        kept = [place for place, image in enumerate(side.captioned) if both is None or image in both]
        return np.array([[values(record.times[place]) for place in kept] for record in side.good], dtype=np.float64)
