"""Whether a case's times can be trusted: its raw records go in; reasons why not come out, in few words.

The rules are pyperf's, for times that differ from image to image: so repeats are compared as wholes, and warming up is looked for
where every image is the same work, in the encoder.
"""

from collections.abc import Sequence
from statistics import median

from toolkit.records.record import Record
from toolkit.stats.figures import seconds_per_image

SPREAD = 0.10
"""Highest less lowest of the repeats' medians, over their median."""

LEAST_REPEATS = 3
"""Two that agree may do so by chance."""

LEAST_RUNS = 10
"""Runs of the model, all repeats together."""

DRIFT = 0.10
"""Change of the encoder's time between the first and the last third of a process's runs."""

THROTTLED = 0.05
"""Part of the measured time that cores were held back."""


def doubts(records: Sequence[Record]) -> list[str]:
    """Return what speaks against the times of a case's good records (at least one, of one setting)."""
    rules = (_few_repeats, _few_runs, _spread, _warming_up, _throttled)
    return [said for rule in rules if (said := rule(records))]


def _few_repeats(records: Sequence[Record]) -> str | None:
    return f"{len(records)} of {LEAST_REPEATS} repeats" if len(records) < LEAST_REPEATS else None


def _few_runs(records: Sequence[Record]) -> str | None:
    runs = sum(record.workload.runs for record in records)
    return f"{runs} of {LEAST_RUNS} runs of the model" if runs < LEAST_RUNS else None


def _spread(records: Sequence[Record]) -> str | None:
    medians = [seconds_per_image(record) for record in records]
    spread = (max(medians) - min(medians)) / median(medians)
    return f"repeats {spread:.0%} apart" if spread >= SPREAD else None


def _warming_up(records: Sequence[Record]) -> str | None:
    changes = [change for record in records if (change := _last_over_first(record)) is not None]
    change = median(changes) - 1 if changes else 0.0
    if abs(change) < DRIFT:
        return None
    return f"the last images' encoder took {abs(change):.0%} {'more' if change > 0 else 'less'} than the first ones'"


def _last_over_first(record: Record) -> float | None:
    encode_s = [time.encode_s for time in record.times if time.encode_s is not None]
    third = len(encode_s) // 3
    first = median(encode_s[:third]) if third else 0.0
    return median(encode_s[-third:]) / first if first else None


def _throttled(records: Sequence[Record]) -> str | None:
    known = [record for record in records if record.throttled_s is not None]
    measured = sum(time.total_s for record in known for time in record.times)
    held_back = sum(record.throttled_s or 0.0 for record in known)
    return (
        f"heat or a CPU quota held cores back for {held_back / measured:.0%} of the time" if held_back >= THROTTLED * measured > 0 else None
    )
