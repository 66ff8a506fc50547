"""Find reasons why the times of a case are unstable.

The rules follow pyperf, adapted to times that differ between images. Whole repeats are compared with each other. A warm-up effect is
searched in the encoder, whose work is the same for all images.
"""

from collections.abc import Sequence
from statistics import median

from toolkit.records.record import Record
from toolkit.stats.figures import seconds_per_image

SPREAD = 0.10
"""Range of the repeats' medians divided by their median."""

MIN_REPEATS = 3
"""Two repeats may agree by chance."""

MIN_BATCHES = 10
"""Minimum number of batches over all repeats."""

ENCODER_CHANGE = 0.10
"""Relative change of the encoder's time between the first and the last third of a process's batches."""

THROTTLED = 0.05
"""Throttled share of the measured time."""


def instability_reasons(records: Sequence[Record]) -> list[str]:
    """Return the reasons why the times are unstable; an empty list if they are stable.

    Args:
        records: At least one record without an error, all of one case and setting.
    """
    rules = (_few_repeats, _few_batches, _spread, _warming_up, _throttled)
    return [reason for rule in rules if (reason := rule(records))]


def _few_repeats(records: Sequence[Record]) -> str | None:
    return f"{len(records)} of {MIN_REPEATS} repeats" if len(records) < MIN_REPEATS else None


def _few_batches(records: Sequence[Record]) -> str | None:
    batches = sum(record.workload.runs for record in records)
    return f"{batches} of {MIN_BATCHES} batches" if batches < MIN_BATCHES else None


def _spread(records: Sequence[Record]) -> str | None:
    medians = [seconds_per_image(record) for record in records]
    spread = (max(medians) - min(medians)) / median(medians)
    return f"repeats differ by {spread:.0%}" if spread >= SPREAD else None


def _warming_up(records: Sequence[Record]) -> str | None:
    changes = [change for record in records if (change := _last_over_first(record)) is not None]
    change = median(changes) - 1 if changes else 0.0
    if abs(change) < ENCODER_CHANGE:
        return None
    return f"the encoder was {abs(change):.0%} {'slower' if change > 0 else 'faster'} for the last images than for the first"


def _last_over_first(record: Record) -> float | None:
    encode_s = [time.encode_s for time in record.times if time.encode_s is not None]
    third = len(encode_s) // 3
    first = median(encode_s[:third]) if third else 0.0
    return median(encode_s[-third:]) / first if first else None


def _throttled(records: Sequence[Record]) -> str | None:
    known = [record for record in records if record.throttled_s is not None]
    measured_s = sum(time.total_s for record in known for time in record.times)
    throttled_s = sum(record.throttled_s or 0.0 for record in known)
    share = throttled_s / measured_s if measured_s else 0.0
    return f"throttled by heat or a CPU quota for {share:.0%} of the time" if share >= THROTTLED else None
