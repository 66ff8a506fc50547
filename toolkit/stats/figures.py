"""Figures of one process: a record that has no error, its times per image, goes in; one number comes out."""

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from types import MappingProxyType

from toolkit.records.record import Record

Figure = Callable[[Record], float | None]


def seconds_per_image(record: Record) -> float:
    """Return the median over the record's images."""
    return median(image.total_s for image in record.times)


def startup_seconds(record: Record) -> float | None:
    """Return the time from nothing to the first caption."""
    parts = (record.import_s, record.load_s, record.first_caption_s)
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


def joules_per_image(record: Record) -> float | None:
    """Return the energy of one caption."""
    return None if record.energy_j is None else record.energy_j / len(record.times)


def cpu_seconds_per_image(record: Record) -> float | None:
    """Return the time of all threads for one caption."""
    return None if record.cpu_s is None else record.cpu_s / len(record.times)


FIGURES: Mapping[str, Figure] = MappingProxyType(
    {
        "import_seconds": lambda record: record.import_s,
        "load_seconds": lambda record: record.load_s,
        "hash_seconds": lambda record: record.hash_s,
        "first_caption_seconds": lambda record: record.first_caption_s,
        "startup_seconds": startup_seconds,
        "peak_rss_bytes": lambda record: record.peak_rss_bytes,
        "loaded_rss_bytes": lambda record: record.loaded_rss_bytes,
        "cpu_seconds_per_image": cpu_seconds_per_image,
        "joules_per_image": joules_per_image,
    }
)
"""Key of a row → the figure whose median over the repeats it holds."""


def over(ones: Sequence[Record], others: Sequence[Record], figure: Figure) -> list[float]:
    """Return one case's figure over another's of the same repeat, which ran next to it."""
    other_of = {record.repeat: value for record in others if (value := figure(record))}
    return [value / other_of[record.repeat] for record in ones if record.repeat in other_of and (value := figure(record)) is not None]


def speedups(records: Sequence[Record], baseline: Sequence[Record]) -> list[float]:
    """Return how many times as long the baseline took in each repeat."""
    return over(baseline, records, seconds_per_image)
