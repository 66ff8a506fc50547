"""How time and memory grow over a sweep: records go in; a row per case and value goes out, beside what arithmetic says at most.

A line of growth holds everything but one field of the setting fixed; each value is compared with the line's smallest. What may grow:

- time per image: not with the batch and not with threads; with tokens, only the part after the encoder, as the tokens do;
- memory: only what was taken since loading, as the batch, the tokens or the threads do.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from statistics import median

from toolkit.records.record import Record
from toolkit.records.settings import AXES, NATURAL, Setting
from toolkit.stats.rows import Row, group
from toolkit.stats.stability import doubts

KEYS = (
    "case",
    "grows",
    "value",
    "at",
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
    "beyond",
    "unstable",
)
"""`grows` is what grows, `at` the rest of the setting; ratios are to the line's smallest value, `beyond` names what grew faster,
`unstable` says why the times cannot be trusted (null where they can)."""

TITLES = {"batch_size": "batch", "threads": "threads", "tokens": "tokens"}
SLACK = 1.05
"""A ratio counts as beyond its limit where every repeat's is, by this factor: clocks and memory counters are not exact."""


def growth_rows(records: Sequence[Record]) -> list[Row]:
    """Return the rows of every line with at least two values; without a sweep, none."""
    groups = {key: [record for record in listed if record.error is None] for key, listed in group(records).items()}
    rows = []
    for axis in AXES:
        lines: dict[tuple[str, Setting], list[Setting]] = {}
        for (case, setting), good in groups.items():
            if good and getattr(setting, axis) is not None:
                lines.setdefault((case, replace(setting, **{axis: 0})), []).append(setting)
        for (case, _), settings in lines.items():
            if len(settings) > 1:
                listed = sorted(settings, key=lambda setting: int(getattr(setting, axis)))
                rows += [_row(case, axis, setting, groups[case, setting], listed[0], groups[case, listed[0]]) for setting in listed]
    return rows


def _row(case: str, axis: str, setting: Setting, good: Sequence[Record], first: Setting, base: Sequence[Record]) -> Row:
    row: Row = dict.fromkeys(KEYS)
    times = [time.total_s for record in good for time in record.times]
    factor = getattr(setting, axis) / getattr(first, axis)
    row |= {
        "case": case,
        "grows": TITLES[axis],
        "value": getattr(setting, axis),
        "at": " ".join(_said(value, name) for name, value in asdict(setting).items() if name != axis),
        "batch_size": setting.batch_size,
        "threads": setting.threads,
        "forced_tokens": setting.tokens,
        "seconds_per_image": median(times),
        "images_per_second": len(times) / sum(times),
        "beyond": [],
        "unstable": "; ".join(doubts(good)) or None,
    }
    peaks = [record.peak_rss_bytes for record in good if record.peak_rss_bytes is not None]
    row["peak_rss_bytes"] = round(median(peaks)) if peaks else None
    if setting != first:
        _compare(row, "seconds", good, base, _seconds_limit(base, factor) if axis == "tokens" else 1.0)
        _compare(row, "peak_rss", good, base, _memory_limit(base, factor))
    return row


def _said(value: int | None, axis: str) -> str:
    return NATURAL if value is None else AXES[axis].format(value)


def _compare(row: Row, what: str, good: Sequence[Record], base: Sequence[Record], limit: float | None) -> None:
    """Fill in one figure's ratios; a repeat is compared with the same repeat of the smallest value, which ran near it."""
    base_of = {record.repeat: figure for record in base if (figure := _figure(record, what))}
    ratios = [figure / base_of[record.repeat] for record in good if record.repeat in base_of and (figure := _figure(record, what))]
    if not ratios or limit is None:
        return
    row |= {f"{what}_ratio": median(ratios), f"{what}_ratio_low": min(ratios), f"{what}_ratio_high": max(ratios)}
    row[f"{what}_ratio_limit"] = limit
    if min(ratios) > limit * SLACK:
        row["beyond"].append(what)


def _figure(record: Record, what: str) -> float | None:
    return median(time.total_s for time in record.times) if what == "seconds" else record.peak_rss_bytes


def _seconds_limit(base: Sequence[Record], factor: float) -> float:
    """Reading and encoding take what they took; the rest grows as the tokens do."""
    times = [time for record in base for time in record.times]
    fixed = sum(time.read_s + (time.encode_s or 0.0) for time in times) / sum(time.total_s for time in times)
    return fixed + (1 - fixed) * factor


def _memory_limit(base: Sequence[Record], factor: float) -> float | None:
    """What was resident after loading stays; the rest grows by the factor."""
    known = [(r.loaded_rss_bytes, r.peak_rss_bytes) for r in base if r.loaded_rss_bytes is not None and r.peak_rss_bytes is not None]
    if not known:
        return None
    fixed = sum(loaded for loaded, _ in known) / sum(peak for _, peak in known)
    return fixed + (1 - fixed) * factor
