"""Settings of a benchmark: what a case ran with; lists of values go in, a workload per combination and labels for people come out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

from toolkit.records.record import Record, Workload

NATURAL = "natural"
"""In place of a number of tokens: captions end where the model ends them."""

SWEPT = ("batch_size", "threads", "forced_tokens", "min_length", "max_length")
"""Fields of a workload that may differ within a run."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What may differ between the workloads of one run."""

    batch_size: int
    threads: int
    tokens: int | None
    """Forced; None is the natural length."""


AXES = {"batch_size": "b{}", "threads": "t{}", "tokens": "{}tok"}
"""Field of a setting → how a label says it."""


def sweep(workload: Workload, batch_sizes: Sequence[int], threads: Sequence[int], tokens: Sequence[int | None]) -> list[Workload]:
    """Return the workload, whose lengths are the natural ones, with each combination of values, the last list's fastest."""
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
    """Return what a record's case ran with."""
    work = record.workload
    return Setting(batch_size=work.batch_size, threads=work.threads, tokens=work.forced_tokens)


def settings_of(records: Sequence[Record]) -> dict[Setting, str]:
    """Return the settings of a run, each with a label of what differs between them; an empty one if nothing does."""
    found = list(dict.fromkeys(map(setting_of, records)))
    differing = [axis for axis in AXES if len({getattr(setting, axis) for setting in found}) > 1]
    return {setting: " ".join(_said(setting, axis) for axis in differing) for setting in found}


def values(records: Sequence[Record], axis: str) -> list[int | None]:
    """Return the values of one field of the settings, in the order in which they ran."""
    return list(dict.fromkeys(getattr(setting_of(record), axis) for record in records))


def _said(setting: Setting, axis: str) -> str:
    value = getattr(setting, axis)
    return NATURAL if value is None else AXES[axis].format(value)
