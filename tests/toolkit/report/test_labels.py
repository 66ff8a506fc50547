"""Placement of names beside points."""

import random
from itertools import pairwise

import pytest

from toolkit.report.labels import Box, boxes_along, place_names
from toolkit.report.throughput import move_apart

PAGE = Box(left=0, bottom=0, right=400, top=300)


def test_common_area():
    box = Box(left=0, bottom=0, right=4, top=3)
    assert box.common(Box(left=2, bottom=1, right=10, top=10)) == 2 * 2
    assert box.common(Box(left=4, bottom=0, right=5, top=3)) == 0
    assert Box(left=1, bottom=0, right=0, top=1).area == 0


def test_a_single_name_is_placed_right_of_its_point():
    (box,) = place_names([(100, 100)], [(50, 12)], PAGE, [])
    assert (box.left, box.bottom, box.right, box.top) == (107, 94, 157, 106)


def test_a_name_stays_inside_the_drawing():
    (box,) = place_names([(390, 150)], [(50, 12)], PAGE, [])
    assert box.common(PAGE) == pytest.approx(50 * 12)


def test_names_of_close_points_overlap_neither_each_other_nor_an_obstacle():
    chance = random.Random(0)
    points = [(200 + chance.uniform(-25, 25), 150 + chance.uniform(-25, 25)) for _ in range(8)]
    obstacles = boxes_along((0, 150), (400, 150))
    boxes = place_names(points, [(60, 12)] * 8, PAGE, obstacles)
    pairs = [(a, b) for number, a in enumerate(boxes) for b in [*boxes[:number], *obstacles]]
    assert [pair for pair in pairs if pair[0].common(pair[1]) > 0] == []


def test_a_line_is_covered_from_end_to_end():
    boxes = boxes_along((0, 0), (10, 0), thickness=2)
    assert (boxes[0].left, boxes[-1].right) == (-1, 11)
    assert all(before.right >= after.left - 2 for before, after in pairwise(boxes))


@pytest.mark.parametrize(
    ("heights", "moved"),
    [
        ([], []),
        ([5.0], [5.0]),
        ([0.0, 20.0], [0.0, 20.0]),
        ([0.0, 4.0], [-3.0, 7.0]),  # the mean does not change
        ([4.0, 0.0], [7.0, -3.0]),  # the order does not change
        ([0.0, 1.0, 2.0, 50.0], [-9.0, 1.0, 11.0, 50.0]),
        ([0.0, 9.0, 18.0], [-1.0, 9.0, 19.0]),
    ],
)
def test_heights_move_apart_as_little_as_possible(heights, moved):
    assert move_apart(heights, 10) == pytest.approx(moved)
