"""Place the names of points with as little overlap as possible.

Names are placed one after the other. Each name takes the nearest free position around its point. If no position is free, it takes the one
with the smallest overlap. Units are those of the drawing; y points upwards.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

DISTANCES = (7.0, 14.0, 24.0, 36.0, 50.0)
"""Candidate distances from a point to the middle of the nearest edge of its name."""

DIRECTIONS = tuple(math.radians(degrees) for degrees in (0, 40, -40, 90, -90, 140, -140, 180))
"""Candidate directions, from right of the point to left of it."""

OUTSIDE = 1000.0
"""Cost of a unit of area outside the drawing, relative to a unit of overlap."""


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
        """Return the area; 0 if an edge is on the wrong side."""
        return max(self.right - self.left, 0.0) * max(self.top - self.bottom, 0.0)

    def common(self, other: "Box") -> float:
        """Return the area of the intersection."""
        return Box(
            left=max(self.left, other.left),
            bottom=max(self.bottom, other.bottom),
            right=min(self.right, other.right),
            top=min(self.top, other.top),
        ).area


def place_names(points: Sequence[Point], sizes: Sequence[Point], bounds: Box, obstacles: Sequence[Box]) -> list[Box]:
    """Return the box of each point's name.

    Args:
        points: (x, y) of each point.
        sizes: (width, height) of each name.
        bounds: The drawing; names stay inside.
        obstacles: Boxes that names should not cover.
    """
    placed: list[Box] = []
    for point, size in zip(points, sizes, strict=True):
        taken = [*obstacles, *placed]
        boxes = [_box(point, size, distance, turn) for distance in DISTANCES for turn in DIRECTIONS]
        costs = [sum(box.common(other) for other in taken) + OUTSIDE * (box.area - box.common(bounds)) for box in boxes]
        placed.append(boxes[costs.index(min(costs))])
    return placed


def boxes_along(start: Point, end: Point, thickness: float = 2.0) -> list[Box]:
    """Return small boxes that cover a straight line, to be used as obstacles."""
    steps = max(1, math.ceil(math.dist(start, end) / 4))
    half = thickness / 2
    centres = [tuple(a + (b - a) * step / steps for a, b in zip(start, end, strict=True)) for step in range(steps + 1)]
    return [Box(left=x - half, bottom=y - half, right=x + half, top=y + half) for x, y in centres]


def _box(point: Point, size: Point, distance: float, turn: float) -> Box:
    """Return the box whose nearest edge has the given distance from the point."""
    (x, y), (width, height) = point, size
    middle_x = x + math.cos(turn) * distance + width / 2 * round(math.cos(turn), 9)
    middle_y = y + math.sin(turn) * (distance + height / 2)
    return Box(left=middle_x - width / 2, bottom=middle_y - height / 2, right=middle_x + width / 2, top=middle_y + height / 2)
