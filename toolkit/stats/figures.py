"""Compute single figures of one record without an error, whose times are per image (`toolkit.stats.per_image`)."""

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from types import MappingProxyType

from toolkit.records.record import Record

Figure = Callable[[Record], float | None]


def seconds_per_image(record: Record) -> float:
    """Return the median time per image."""
    return median(image.total_s for image in record.times)


def startup_seconds(record: Record) -> float | None:
    """Return the time from process start to the first caption: import, load and first caption."""
    parts = (record.import_s, record.load_s, record.first_caption_s)
    measured = [part for part in parts if part is not None]
    return sum(measured) if len(measured) == len(parts) else None


def joules_per_image(record: Record) -> float | None:
    """Return the mean energy per image."""
    return None if record.energy_j is None else record.energy_j / len(record.times)


def cpu_seconds_per_image(record: Record) -> float | None:
    """Return the mean CPU time of all threads per image."""
    return None if record.cpu_s is None else record.cpu_s / len(record.times)


FIGURES: Mapping[str, Figure] = MappingProxyType(
    {
        "import_seconds": lambda record: record.import_s,
        "load_seconds": lambda record: record.load_s,
        "hash_seconds": lambda record: record.hash_s,
        "first_caption_seconds": lambda record: record.first_caption_s,
        "startup_seconds": startup_seconds,
        "peak_rss_bytes": lambda record: record.peak_rss_bytes,
        "peak_gpu_bytes": lambda record: record.peak_gpu_bytes,
        "loaded_rss_bytes": lambda record: record.loaded_rss_bytes,
        "cpu_seconds_per_image": cpu_seconds_per_image,
        "joules_per_image": joules_per_image,
    }
)
"""Key of a row → the figure whose median over repeats is its value."""


def ratios(records: Sequence[Record], others: Sequence[Record], figure: Figure) -> list[float]:
    """Return the ratio of two cases' figures for each repeat, because the cases of a repeat run close together in time."""
    by_repeat = {record.repeat: value for record in others if (value := figure(record))}
    return [value / by_repeat[record.repeat] for record in records if record.repeat in by_repeat and (value := figure(record)) is not None]


def speedups(records: Sequence[Record], baseline: Sequence[Record]) -> list[float]:
    """Return the baseline's time divided by the case's time for each repeat."""
    return ratios(baseline, records, seconds_per_image)
