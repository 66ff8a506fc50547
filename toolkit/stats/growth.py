"""Compare the growth of time and memory over a sweep with an expected limit.

A series varies one field of the setting; the other fields are fixed. Each value is compared with the smallest value of its series. Limits:

- Time per image must not grow with the batch size or the threads. With tokens, only the time after the encoder may grow, in proportion.
- Memory: only the part that is allocated after loading may grow, in proportion to the batch size, the tokens or the threads.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from statistics import median

from toolkit.records.record import Record
from toolkit.records.settings import AXES, Setting, value_label
from toolkit.stats.rows import Row, group
from toolkit.stats.stability import instability_reasons

KEYS = (
    "case",
    "parameter",
    "value",
    "fixed",
    "batch_size",
    "threads",
    "forced_tokens",
    "seconds_per_image",
    "seconds_ratio",
    "seconds_ratio_low",
    "seconds_ratio_high",
    "seconds_ratio_limit",
    "images_per_second",
    "peak_rss_bytes",
    "peak_rss_ratio",
    "peak_rss_ratio_low",
    "peak_rss_ratio_high",
    "peak_rss_ratio_limit",
    "exceeds",
    "unstable",
)
"""Keys of a row.

`parameter` is the field that varies; `fixed` are the other fields. Ratios are relative to the smallest value of the series. `exceeds` lists
the figures that grew by more than their limit. `unstable` is the reason why the times are unstable, or null.
"""

TITLES = {"batch_size": "batch", "threads": "threads", "tokens": "tokens"}
SLACK = 1.05
"""A figure exceeds its limit if the ratio of every repeat exceeds it by this factor; it allows for inexact clocks and counters."""


def growth_rows(records: Sequence[Record]) -> list[Row]:
    """Return the rows of all series with at least two values; no rows without a sweep."""
    groups = {key: [record for record in case_records if record.error is None] for key, case_records in group(records).items()}
    rows = []
    for axis in AXES:
        series: dict[tuple[str, Setting], list[Setting]] = {}
        for (case, setting), good in groups.items():
            if good and getattr(setting, axis) is not None:
                series.setdefault((case, replace(setting, **{axis: 0})), []).append(setting)
        for (case, _), settings in series.items():
            if len(settings) > 1:
                first, *_ = ordered = sorted(settings, key=lambda setting: int(getattr(setting, axis)))
                rows += [_row(case, axis, setting, groups[case, setting], first, groups[case, first]) for setting in ordered]
    return rows


def _row(case: str, axis: str, setting: Setting, good: Sequence[Record], first: Setting, base: Sequence[Record]) -> Row:
    row: Row = dict.fromkeys(KEYS)
    times = [time.total_s for record in good for time in record.times]
    factor = getattr(setting, axis) / getattr(first, axis)
    row |= {
        "case": case,
        "parameter": TITLES[axis],
        "value": getattr(setting, axis),
        "fixed": " ".join(value_label(value, name) for name, value in asdict(setting).items() if name != axis),
        "batch_size": setting.batch_size,
        "threads": setting.threads,
        "forced_tokens": setting.tokens,
        "seconds_per_image": median(times),
        "images_per_second": len(times) / sum(times),
        "exceeds": [],
        "unstable": "; ".join(instability_reasons(good)) or None,
    }
    peaks = [record.peak_rss_bytes for record in good if record.peak_rss_bytes is not None]
    row["peak_rss_bytes"] = round(median(peaks)) if peaks else None
    if setting != first:
        _compare(row, "seconds", good, base, _seconds_limit(base, factor) if axis == "tokens" else 1.0)
        _compare(row, "peak_rss", good, base, _memory_limit(base, factor))
    return row


def _compare(row: Row, what: str, good: Sequence[Record], base: Sequence[Record], limit: float | None) -> None:
    """Set the ratios of one figure; each repeat is compared with the same repeat of the smallest value."""
    base_of = {record.repeat: figure for record in base if (figure := _figure(record, what))}
    ratios = [figure / base_of[record.repeat] for record in good if record.repeat in base_of and (figure := _figure(record, what))]
    if not ratios or limit is None:
        return
    row |= {f"{what}_ratio": median(ratios), f"{what}_ratio_low": min(ratios), f"{what}_ratio_high": max(ratios)}
    row[f"{what}_ratio_limit"] = limit
    if min(ratios) > limit * SLACK:
        row["exceeds"].append(what)


def _figure(record: Record, what: str) -> float | None:
    return median(time.total_s for time in record.times) if what == "seconds" else record.peak_rss_bytes


def _seconds_limit(base: Sequence[Record], factor: float) -> float:
    """Return the limit if the time of reading and encoding is constant and the rest grows by `factor`."""
    times = [time for record in base for time in record.times]
    fixed = sum(time.read_s + (time.encode_s or 0.0) for time in times) / sum(time.total_s for time in times)
    return fixed + (1 - fixed) * factor


def _memory_limit(base: Sequence[Record], factor: float) -> float | None:
    """Return the limit if the memory after loading is constant and the rest grows by `factor`."""
    known = [(r.loaded_rss_bytes, r.peak_rss_bytes) for r in base if r.loaded_rss_bytes is not None and r.peak_rss_bytes is not None]
    if not known:
        return None
    fixed = sum(loaded for loaded, _ in known) / sum(peak for _, peak in known)
    return fixed + (1 - fixed) * factor
