"""Which case stands against which: two files' records go in; pairs of sides come out, unless the files are not to be compared."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from runtimes.errors import RecordError, RequestError
from toolkit.compare.sides import Pair, Side
from toolkit.records.record import BASELINE, Record, read_records
from toolkit.records.settings import AXES, NATURAL, Setting, setting_of, settings_of
from toolkit.stats.rows import Row, check_comparable, group, make_rows

HOST = ("cpu", "cpu_features", "cores", "system")
"""What makes a machine; versions of Python and of libraries are told, not refused, since comparing them is a purpose."""

WORKLOAD = ("dataset_sha256", "images", "prompt", "num_beams", "warmup")
"""What makes figures of two runs comparable, besides the setting."""


HASH_LENGTH = 64
"""Hexadecimal digits of a sha256."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One file of records."""

    name: str
    records: Sequence[Record]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Something that two runs do not have in common."""

    kind: str
    """Of `Tolerated`'s fields, the one that allows it."""
    said: str


@dataclass(frozen=True, kw_only=True)
class Tolerated:
    """Differences that the user knows of."""

    hosts: bool = False
    workloads: bool = False
    checkpoints: bool = False


@dataclass(frozen=True, kw_only=True)
class Paired:
    """One line of cases of A and B."""

    case: str
    other: str
    """The case's name in B."""
    setting: str
    """What sets it apart within a sweep; empty if nothing does."""
    pair: Pair | None
    problem: str | None = None
    """Why there is no pair."""


def read_run(path: Path) -> Run:
    """Read a file of records of one run.

    Raises:
        RecordError: It cannot be read, or holds records of several runs.
    """
    records = read_records(path)
    check_comparable(records, str(path))
    return Run(name=str(path), records=records)


def differences(a: Run, b: Run) -> list[Difference]:
    """Return what keeps the figures of two runs from being set against each other, besides settings."""
    found = []
    for kind, part, fields in (("hosts", "host", HOST), ("workloads", "workload", WORKLOAD)):
        ours, theirs = (getattr(run.records[0], part) for run in (a, b))
        values = [(field, getattr(ours, field), getattr(theirs, field)) for field in fields]
        said = [f"{part} {field} is {_short(one)} and {_short(other)}" for field, one, other in values if one != other]
        found += [Difference(kind=kind, said=text) for text in said]
    made_from = [sorted({record.subject.checkpoint_sha256[:12] for record in run.records if record.subject}) for run in (a, b)]
    if all(made_from) and made_from[0] != made_from[1]:
        found.append(Difference(kind="checkpoints", said=f"checkpoint sha256 is {made_from[0][0]} and {made_from[1][0]}"))
    return found


def _short(value: object) -> str:
    """Write a value, a hash by its beginning."""
    return value[:12] if isinstance(value, str) and len(value) == HASH_LENGTH else repr(value)


def check_alike(a: Run, b: Run, tolerated: Tolerated) -> None:
    """Refuse runs whose figures cannot be set against each other, as long as nobody said that they may.

    Raises:
        RecordError: Names the first difference, with both values, and the option that allows it.
    """
    for difference in differences(a, b):
        if not getattr(tolerated, difference.kind):
            _refuse(a, b, difference)


def _refuse(a: Run, b: Run, difference: Difference) -> NoReturn:
    raise RecordError(f"{a.name} and {b.name}", f"{difference.said}; --different-{difference.kind} compares them all the same")


def pair_up(a: Run, b: Run, names: Sequence[tuple[str, str]], tolerated: Tolerated) -> list[Paired]:
    """Return a line for each case of A, or for each of `names`, with each setting that both ran.

    Args:
        a: The first run.
        b: The second.
        names: Cases of A and of B that stand against each other; all of A's against the same of B's if empty.
        tolerated: As given to `check_alike`.

    Raises:
        RequestError: A name is of no case.
        RecordError: The runs have no setting in common.
    """
    ours, theirs = (list(dict.fromkeys(record.case for record in run.records)) for run in (a, b))
    for name, run, known in [(one, a, ours) for one, _ in names] + [(other, b, theirs) for _, other in names]:
        if name not in known:
            raise RequestError(f"{run.name} has no case '{name}'; it has: {', '.join(known)}")
    settings = _settings(a, b, tolerated)
    sides_a, sides_b = _sides(a), _sides(b)
    same = a.records[0].workload.dataset_sha256 == b.records[0].workload.dataset_sha256
    return [
        _paired(one, other, label, sides_a.get((one, setting_a)), sides_b.get((other, setting_b)), same)
        for one, other in names or [(case, case) for case in ours]
        for (setting_a, setting_b), label in settings.items()
    ]


def _settings(a: Run, b: Run, tolerated: Tolerated) -> dict[tuple[Setting, Setting], str]:
    """Return the settings that stand against each other, with a label; two single ones that differ, where that is tolerated."""
    ours, theirs = (settings_of(run.records) for run in (a, b))
    common = {
        (setting, setting): label for setting, label in ours.items() if setting in theirs and _length(a, setting) == _length(b, setting)
    }
    if not common and tolerated.workloads and len(ours) == len(theirs) == 1:
        return {(next(iter(ours)), next(iter(theirs))): ""}
    if not common:
        said = [", ".join(_said(run, setting) for setting in listed) for run, listed in ((a, ours), (b, theirs))]
        _refuse(a, b, Difference(kind="workloads", said=f"no setting in common: {said[0]} and {said[1]}"))
    return common


def _length(run: Run, setting: Setting) -> int | None:
    return next(record.workload.max_length for record in run.records if setting_of(record) == setting)


def _said(run: Run, setting: Setting) -> str:
    """Say a whole setting: b1 t2 20tok, or b1 t2 natural to 20."""
    words = [NATURAL if value is None else AXES[axis].format(value) for axis, value in vars(setting).items()]
    return " ".join(words) + (f" to {_length(run, setting)}" if setting.tokens is None else "")


def _sides(run: Run) -> dict[tuple[str, Setting], Side]:
    rows: dict[tuple[str, Setting], Row] = {
        (row["case"], Setting(batch_size=row["batch_size"], threads=row["threads"], tokens=row["forced_tokens"])): row
        for row in make_rows(run.records)
    }
    good = {key: [record for record in listed if record.error is None] for key, listed in group(run.records).items()}
    return {key: Side(row=rows[key], good=good[key], baseline=good.get((BASELINE, key[1]), ())) for key in rows}


def _paired(case: str, other: str, label: str, a: Side | None, b: Side | None, same: bool) -> Paired:
    problem = _problem("A", a) or _problem("B", b)
    pair = Pair(a=a, b=b, same_images=same) if a and b and problem is None else None
    return Paired(case=case, other=other, setting=label, pair=pair, problem=problem)


def _problem(name: str, side: Side | None) -> str | None:
    if side is None:
        return f"not in {name}"
    return None if side.good else f"failed in {name}: {side.row['error']}"
