"""Where the names of points stand: points and the sizes of their names go in, boxes that overlap as little as can be come out.

Names are placed one after the other, each at the nearest of the places around its point that is free; where none is, at the one that
covers least. Units are those of the drawing; y grows upwards.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

DISTANCES = (7.0, 14.0, 24.0, 36.0, 50.0)
"""From a point to the middle of the nearest edge of its name."""

DIRECTIONS = tuple(math.radians(degrees) for degrees in (0, 40, -40, 90, -90, 140, -140, 180))
"""Right of the point first, left last."""

OUTSIDE = 1000.0
"""How much worse a unit of area outside the drawing is than one on another name."""


Point: TypeAlias = tuple[float, float]
"""(x, y)."""


@dataclass(frozen=True, kw_only=True)
class Box:
    """A rectangle."""

    left: float
    bottom: float
    right: float
    top: float

    @property
    def area(self) -> float:
        """Return its area, 0 where it is inside out."""
        return max(self.right - self.left, 0.0) * max(self.top - self.bottom, 0.0)

    def common(self, other: "Box") -> float:
        """Return the area that both cover."""
        return Box(
            left=max(self.left, other.left),
            bottom=max(self.bottom, other.bottom),
            right=min(self.right, other.right),
            top=min(self.top, other.top),
        ).area


def place(points: Sequence[Point], sizes: Sequence[Point], bounds: Box, obstacles: Sequence[Box]) -> list[Box]:
    """Return the box of each point's name.

    Args:
        points: (x, y) of each.
        sizes: (width, height) of each name.
        bounds: Names stay inside.
        obstacles: What names must not cover.
    """
    placed: list[Box] = []
    for point, size in zip(points, sizes, strict=True):
        taken = [*obstacles, *placed]
        boxes = [_box(point, size, distance, turn) for distance in DISTANCES for turn in DIRECTIONS]
        costs = [sum(box.common(other) for other in taken) + OUTSIDE * (box.area - box.common(bounds)) for box in boxes]
        placed.append(boxes[costs.index(min(costs))])
    return placed


def along(start: Point, end: Point, thickness: float = 2.0) -> list[Box]:
    """Return small boxes that cover a straight line, as obstacles."""
    steps = max(1, math.ceil(math.dist(start, end) / 4))
    half = thickness / 2
    centres = [tuple(a + (b - a) * step / steps for a, b in zip(start, end, strict=True)) for step in range(steps + 1)]
    return [Box(left=x - half, bottom=y - half, right=x + half, top=y + half) for x, y in centres]


def _box(point: Point, size: Point, distance: float, turn: float) -> Box:
    """Return the box whose edge is that far from the point: its middle moves outwards by half its size."""
    (x, y), (width, height) = point, size
    middle_x = x + math.cos(turn) * distance + width / 2 * round(math.cos(turn), 9)
    middle_y = y + math.sin(turn) * (distance + height / 2)
    return Box(left=middle_x - width / 2, bottom=middle_y - height / 2, right=middle_x + width / 2, top=middle_y + height / 2)
