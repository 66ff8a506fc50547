"""Limits that fail a build, as a small language: `seconds_per_image>+5%` goes in, whether B breaks it comes out.

    LIMIT   = MEASURE COMPARE NUMBER ["%"]
    COMPARE = ">" | ">=" | "<" | "<="

With a percent sign NUMBER is the change from A to B, in per cent of A's figure; without, it is B's figure itself, in the units of a
report's JSON (seconds, bytes, 0..1, nat per token). What the limit says is what fails: `cider<-1%` fails where CIDEr-D fell by more.

A change fails only where all of its 95 % interval is beyond the limit, so that noise fails no build; with `strict` the change itself
decides, as it does where there is no interval. B's figure is taken as it is. What was not measured breaks every limit on it.
"""

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from toolkit.compare.comparison import Compared
from toolkit.compare.measures import MEASURES

GRAMMAR = re.compile(
    r"\s*(?P<measure>\w+)\s*(?P<compare>[<>]=?)\s*(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(?P<percent>%?)\s*"
)

COMPARE: dict[str, Callable[[float, float], bool]] = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


@dataclass(frozen=True, kw_only=True)
class Limit:
    """One limit."""

    text: str
    """As it was given."""
    measure: str
    compare: str
    number: float
    """A fraction where it is of a change."""
    of_change: bool


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A limit that B breaks."""

    limit: Limit
    reason: str


def read_limit(text: str) -> Limit:
    """Read a limit.

    Raises:
        ValueError: It is none, or of an unknown measure; says which there are.
    """
    match = GRAMMAR.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no limit; one is MEASURE, one of > >= < <=, and a number, in per cent for a change: cider<-1%")
    known = {measure.key: measure for measure in MEASURES}
    if match["measure"] not in known:
        raise ValueError(f"unknown measure '{match['measure']}'; known: {', '.join(known)}")
    percent = bool(match["percent"])
    if percent and known[match["measure"]].absolute:
        raise ValueError(f"{match['measure']} has no change in per cent; give a number without % for its value in B")
    number = float(match["number"]) / (100 if percent else 1)
    return Limit(text=text.strip(), measure=match["measure"], compare=match["compare"], number=number, of_change=percent)


def broken(limits: Sequence[Limit], compared: Sequence[Compared], *, strict: bool) -> list[Broken]:
    """Return the limits that a pair breaks."""
    lines = {one.measure.key: one for one in compared}
    return [Broken(limit=limit, reason=reason) for limit in limits if (reason := _reason(limit, lines[limit.measure], strict=strict))]


def _reason(limit: Limit, line: Compared, *, strict: bool) -> str | None:
    figure = line.change.change if limit.of_change else line.b
    if figure is None:
        return line.said if limit.of_change else "not measured"
    decides = figure
    if limit.of_change and not strict:
        nearer = line.change.low if ">" in limit.compare else line.change.high
        decides = figure if nearer is None else nearer
    if not COMPARE[limit.compare](decides, limit.number):
        return None
    return line.said if limit.of_change else f"{figure:.4g}"
