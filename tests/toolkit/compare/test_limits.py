"""Limits: their syntax, and which changes and values violate them, by interval and with `strict`."""

import pytest

from exporters.gate.intervals import Change
from toolkit.compare.comparison import Compared
from toolkit.compare.limits import find_violations, read_limit
from toolkit.compare.measures import MEASURES

KNOWN = {measure.key: measure for measure in MEASURES}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("seconds_per_image>+5%", ("seconds_per_image", ">", 0.05, True)),
        ("cider<-1%", ("cider", "<", -0.01, True)),
        ("drift>0.02", ("drift", ">", 0.02, False)),
        (" peak_rss_bytes >= 5e8 ", ("peak_rss_bytes", ">=", 5e8, False)),
        ("speedup<=2.", ("speedup", "<=", 2.0, False)),
        ("tokens_per_second<-.5 %", ("tokens_per_second", "<", -0.005, True)),
    ],
)
def test_a_limit_is_read(text, parts):
    limit = read_limit(text)
    assert (limit.measure, limit.compare, limit.number, limit.of_change) == parts
    assert limit.text == text.strip()


@pytest.mark.parametrize(
    "text", ["", "cider", "cider<", "cider 1%", "cider=1", "cider<one", "cider<1%%", "<1", "cider<1 cider>2", "cider<nan"]
)
def test_invalid_syntax_is_refused(text):
    with pytest.raises(ValueError, match=r"MEASURE.*> >= < <="):
        read_limit(text)


def test_the_error_for_an_unknown_measure_lists_the_known_ones():
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the whole message follows
        read_limit("latency>1%")
    assert str(raised.value) == f"unknown measure 'latency'; known: {', '.join(measure.key for measure in MEASURES)}"


def test_an_absolute_measure_has_no_limit_in_per_cent():
    with pytest.raises(ValueError, match=r"drift .*%"):
        read_limit("drift>5%")


def reasons(text, change, *, a=1.0, b=1.0, strict=False):
    limit = read_limit(text)
    compared = [
        Compared(measure=measure, a=a, b=b, change=change if key == limit.measure else Change(0.0, 0.0, 0.0))
        for key, measure in KNOWN.items()
    ]
    return [violation.reason for violation in find_violations([limit], compared, strict=strict)]


SLOWER = Change(0.10, 0.06, 0.14)


@pytest.mark.parametrize(
    ("text", "change", "fails", "fails_strictly"),
    [
        ("seconds_per_image>+5%", SLOWER, True, True),
        ("seconds_per_image>+6%", SLOWER, False, True),  # the interval begins at the limit
        ("seconds_per_image>=+6%", SLOWER, True, True),
        ("seconds_per_image>+8%", SLOWER, False, True),
        ("seconds_per_image>+12%", SLOWER, False, False),
        ("seconds_per_image<-5%", SLOWER, False, False),
        ("cider<-1%", Change(-0.05, -0.09, -0.02), True, True),
        ("cider<-1%", Change(-0.05, -0.12, 0.02), False, True),
        ("cider<-1%", Change(0.05, 0.02, 0.09), False, False),
        ("cider<-2%", Change(-0.05, -0.09, -0.02), False, True),
        ("cider<=-2%", Change(-0.05, -0.09, -0.02), True, True),
        ("artifact_bytes>0%", Change(0.001, 0.001, 0.001), True, True),
        ("artifact_bytes>0%", Change(0.0, 0.0, 0.0), False, False),
        ("peak_rss_bytes>5%", Change(0.06, None, None), True, True),  # without an interval the change decides
    ],
)
def test_limits_on_changes(text, change, fails, fails_strictly):
    assert [bool(reasons(text, change, strict=strict)) for strict in (False, True)] == [fails, fails_strictly]


@pytest.mark.parametrize(("text", "b", "fails"), [("drift>0.02", 0.021, True), ("drift>0.02", 0.02, False), ("speedup<2", 1.5, True)])
def test_limits_on_the_value_of_b(text, b, fails):
    for strict in (False, True):
        assert bool(reasons(text, Change(9.0, -9.0, 9.0), b=b, strict=strict)) == fails


def test_a_reason_contains_the_measured_change_or_value():
    assert reasons("seconds_per_image>+5%", SLOWER) == ["slower by 10.0% [6.0%, 14.0%]"]
    assert reasons("drift>0.02", Change(0.0, 0.0, 0.0), b=0.0312345) == ["0.03123"]


def test_an_unmeasured_value_violates_every_limit():
    nothing = Change(None, None, None)
    assert reasons("joules_per_image>1", nothing, a=None, b=None) == ["not measured"]
    assert reasons("joules_per_image>5%", nothing, a=None, b=None) == ["not measured"]
    assert reasons("cider<-1%", nothing) == ["not compared"], "different images"
