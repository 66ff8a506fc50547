"""The settings of a sweep: make one workload per combination of values, and label settings in tables."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

from toolkit.records.record import Record, Workload

NATURAL = "natural"
"""Value of --tokens without forced tokens: the model ends its captions."""

SWEPT = ("batch_size", "threads", "forced_tokens", "min_length", "max_length")
"""Fields of a workload that may differ between the records of one run."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The values that may differ between the workloads of one run."""

    batch_size: int
    threads: int
    tokens: int | None
    """Forced tokens; None: natural length."""


AXES = {"batch_size": "b{}", "threads": "t{}", "tokens": "{}tok"}
"""Field of a setting → its format in a label."""


def sweep(workload: Workload, batch_sizes: Sequence[int], threads: Sequence[int], tokens: Sequence[int | None]) -> list[Workload]:
    """Return one workload per combination of values; the last list varies fastest.

    Args:
        workload: The common settings, with natural lengths.
        batch_sizes: Images per batch.
        threads: CPU threads.
        tokens: Forced tokens; None: natural length.
    """
    return [
        replace(
            workload,
            batch_size=batch_size,
            threads=count,
            forced_tokens=forced,
            min_length=workload.min_length if forced is None else None,
            max_length=workload.max_length if forced is None else None,
        )
        for batch_size, count, forced in product(batch_sizes, threads, tokens)
    ]


def setting_of(record: Record) -> Setting:
    """Return the setting of a record."""
    work = record.workload
    return Setting(batch_size=work.batch_size, threads=work.threads, tokens=work.forced_tokens)


def settings_of(records: Sequence[Record]) -> dict[Setting, str]:
    """Return setting → label in order of first use. A label contains only the fields that differ; without any it is empty."""
    settings = list(dict.fromkeys(map(setting_of, records)))
    differing = [axis for axis in AXES if len({getattr(setting, axis) for setting in settings}) > 1]
    return {setting: " ".join(value_label(getattr(setting, axis), axis) for axis in differing) for setting in settings}


def values(records: Sequence[Record], axis: str) -> list[int | None]:
    """Return the values of one field of the settings in order of first use."""
    return list(dict.fromkeys(getattr(setting_of(record), axis) for record in records))


def value_label(value: int | None, axis: str) -> str:
    """Return the label of one field's value."""
    return NATURAL if value is None else AXES[axis].format(value)
