"""Counting rows: limits of errors, the first error of each code, and durations."""

import pytest

from runtimes.errors import TooManyErrorsError
from toolkit.distribute.part import Part
from toolkit.distribute.tally import MaxErrors, News, Tally, duration


def tally(total=1000, done=0, failed=0, limit=""):
    lines = []
    return Tally(total, done, failed, MaxErrors.parse(limit) if limit else MaxErrors(), lines.append), lines


def errors(count, code="IMAGE_UNREADABLE"):
    return tuple((code, f"{code} {number}") for number in range(count))


@pytest.mark.parametrize(("text", "allowed"), [("0", 0), ("25", 25), ("5%", 10), ("0%", 0), ("0.7%", 1)])
def test_the_limit_of_errors(text, allowed):
    counted, _ = tally(total=200, limit=text)
    counted.add(News(rows=200, errors=errors(allowed)))
    with pytest.raises(TooManyErrorsError):
        counted.add(News(rows=1, errors=errors(1)))


@pytest.mark.parametrize("text", ["", "x", "-1", "101%", "-1%", "nan%", "5 %%"])
def test_what_is_no_limit(text):
    with pytest.raises(ValueError):  # noqa: PT011 - the messages are those of `int` and `float`
        MaxErrors.parse(text)


def test_a_run_whose_first_images_all_fail_stops():
    counted, _ = tally()
    counted.add(News(rows=99, errors=errors(99)))
    with pytest.raises(TooManyErrorsError):
        counted.add(News(rows=1, errors=errors(1)))
    for counted, _ in (tally(done=1), tally(limit="100%"), tally(limit="1000")):
        counted.add(News(rows=500, errors=errors(500)))


def test_the_first_error_of_each_code_is_shown():
    counted, lines = tally()
    counted.add(News(rows=4, errors=(*errors(2), *errors(1, "IMAGE_CRASH"))))
    counted.add(News(rows=2, errors=errors(1)))
    assert lines == ["first IMAGE_UNREADABLE: IMAGE_UNREADABLE 0", "first IMAGE_CRASH: IMAGE_CRASH 0"]
    assert (counted.done, counted.failed, counted.added) == (6, 4, 6)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.6, "1 min"), (3661, "1 h 1 min"), (90_000, "1 d 1 h"), (86_400 * 7, "7 d"), (61, "1 min 1 s")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize("text", ["", "3", "0/2", "3/2", "a/b", "1/2/3"])
def test_what_is_no_part(text):
    with pytest.raises(ValueError):  # noqa: PT011 - the messages are those of `int` and `float`
        Part.parse(text)
