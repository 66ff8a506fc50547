"""Parse limits such as `seconds_per_image>+5%`, and find those that run B violates. A limit is the condition that fails a build.

    LIMIT   = MEASURE COMPARE NUMBER ["%"]
    COMPARE = ">" | ">=" | "<" | "<="

With a percent sign, the limit is on the change from A to B, in per cent of A's value. Without, it is on B's value, in the units of a
report's JSON (seconds, bytes, 0..1, nat per token). Example: `cider<-1%` fails if CIDEr-D falls by more than 1 %.

A change violates a limit only if its whole 95 % confidence interval meets the condition, so that noise fails no build. With `strict`, or
without an interval, the change itself decides. A limit on B's value ignores intervals. A measure without a value violates its limits.
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
    """A condition on one measure."""

    text: str
    """The limit as the user wrote it."""
    measure: str
    compare: str
    number: float
    """A fraction (0.05 for 5 %) if `of_change`."""
    of_change: bool
    """Whether the limit is on the change from A to B; otherwise on B's value."""


@dataclass(frozen=True, kw_only=True)
class Violation:
    """A limit that B violates, and the measured value or change."""

    limit: Limit
    reason: str


def read_limit(text: str) -> Limit:
    """Parse a limit.

    Raises:
        ValueError: The syntax is wrong, or the measure is unknown; the message lists the known measures.
    """
    match = GRAMMAR.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a limit; write MEASURE, one of > >= < <=, and a number, with % for a change: cider<-1%")
    known = {measure.key: measure for measure in MEASURES}
    if match["measure"] not in known:
        raise ValueError(f"unknown measure '{match['measure']}'; known: {', '.join(known)}")
    percent = bool(match["percent"])
    if percent and known[match["measure"]].absolute:
        raise ValueError(f"{match['measure']} has no change in per cent; give a number without % to limit B's value")
    number = float(match["number"]) / (100 if percent else 1)
    return Limit(text=text.strip(), measure=match["measure"], compare=match["compare"], number=number, of_change=percent)


def find_violations(limits: Sequence[Limit], compared: Sequence[Compared], *, strict: bool) -> list[Violation]:
    """Return the limits that a pair of cases violates."""
    lines = {line.measure.key: line for line in compared}
    return [Violation(limit=limit, reason=reason) for limit in limits if (reason := _reason(limit, lines[limit.measure], strict=strict))]


def _reason(limit: Limit, line: Compared, *, strict: bool) -> str | None:
    figure = line.change.change if limit.of_change else line.b
    if figure is None:
        return line.text if limit.of_change else "not measured"
    decisive = figure
    if limit.of_change and not strict:
        nearer = line.change.low if ">" in limit.compare else line.change.high
        decisive = figure if nearer is None else nearer
    if not COMPARE[limit.compare](decisive, limit.number):
        return None
    return line.text if limit.of_change else f"{figure:.4g}"
