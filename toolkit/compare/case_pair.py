"""A pair of cases, one of each run, with the data that a comparison needs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from exporters.gate.intervals import Float64
from toolkit.records.image_quality import ImageQuality
from toolkit.records.record import ImageTimes, Record
from toolkit.stats.quality import changes
from toolkit.stats.rows import Row


@dataclass(frozen=True, kw_only=True)
class CaseRun:
    """One case of one run, with one setting."""

    row: Row
    """The row of this case in a report."""
    good: Sequence[Record]
    """The records of its successful repeats."""
    baseline: Sequence[Record]
    """The records of the baseline's successful repeats in the same run, with the same setting."""

    @property
    def quality(self) -> Sequence[ImageQuality]:
        """The caption and scores of each image; empty if the repeat that stores them failed."""
        return next((record.quality for record in self.good if record.quality), ())

    @property
    def captioned(self) -> list[int]:
        """Indices of the captioned images among all images, in the order of a record's `times`."""
        return [index for index, image in enumerate(self.quality) if image.error is None] or list(range(len(self.good[0].times)))


@dataclass(frozen=True, kw_only=True)
class CasePair:
    """A case of run A, the earlier one, and a case of run B."""

    a: CaseRun
    b: CaseRun
    same_images: bool

    @cached_property
    def quality(self) -> dict[str, Any]:
        """Changes of scores from A to B; empty unless both have scores of the same images."""
        return changes(self.b.quality, self.a.quality) if self.same_images else {}

    def times(self, values: Callable[[ImageTimes], tuple[float, ...]]) -> tuple[Float64, Float64]:
        """Return two arrays f64[R,N,K] of A and B: repeats, images, values.

        Args:
            values: Returns K values of an image's times.

        With the same images in both runs, only the images that both captioned are used.
        """
        both = set(self.a.captioned) & set(self.b.captioned) if self.same_images else None
        return self._of(self.a, values, both), self._of(self.b, values, both)

    @staticmethod
    def _of(case: CaseRun, values: Callable[[ImageTimes], tuple[float, ...]], both: set[int] | None) -> Float64:
        kept = [position for position, image in enumerate(case.captioned) if both is None or image in both]
        return np.array([[values(record.times[position]) for position in kept] for record in case.good], dtype=np.float64)
