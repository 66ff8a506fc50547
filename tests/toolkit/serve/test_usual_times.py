"""Waiting times follow what requests ask for, first in proportion and then as measured."""

import pytest

from toolkit.serve.model.usual_times import UsualTimes
from toolkit.serve.run_size import RunSize
from toolkit.serve.settings import Limits
from toolkit.serve.tasks import check_options, run_size


@pytest.mark.parametrize(
    ("given", "size"),
    [
        ({}, (1, 0)),
        ({"num_beams": 4}, (4, 0)),
        ({"min_length": 1}, (1, 16)),
        ({"min_length": 16}, (1, 16)),
        ({"min_length": 17, "num_beams": 3}, (3, 32)),
        ({"min_length": -100}, (1, 0)),
        ({"min_length": 10**400}, (1, 512)),
    ],
)
def test_the_size_of_a_request(given, size):
    assert run_size(check_options("caption", given, Limits())) == size


def test_an_unmeasured_size_is_in_proportion_and_a_measured_one_is_an_average():
    usual = UsualTimes(0.5)
    assert [usual.of(RunSize(*size)) for size in ((1, 0), (3, 0), (1, 16), (2, 112))] == [0.5, 1.5, 0.65, 6.1]
    usual.add(RunSize(1, 16), 1.0)
    usual.add(RunSize(1, 16), 2.0)
    assert usual.of(RunSize(1, 16)) == pytest.approx(1.1)
    assert usual.of(RunSize()) == 0.5
