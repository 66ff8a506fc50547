"""Read two files of records, check that they are comparable, and pair their cases."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from runtimes.errors import RecordError, RequestError
from toolkit.compare.case_pair import CasePair, CaseRun
from toolkit.records.record import BASELINE, Record
from toolkit.records.record_file import read_records
from toolkit.records.settings import AXES, NATURAL, Setting, setting_of, settings_of
from toolkit.stats.rows import Row, check_comparable, group, make_rows

HOST = ("cpu", "cpu_features", "cores", "system")
"""Fields that must be equal for the same machine. Versions of Python and libraries may differ, because comparing them is a purpose."""

WORKLOAD = ("task", "texts", "dataset_sha256", "images", "prompt", "num_beams", "generation", "warmup")
"""Fields that must be equal for comparable figures, in addition to the setting."""

HASH_LENGTH = 64
"""Hexadecimal digits of a sha256."""


@dataclass(frozen=True, kw_only=True)
class BenchRun:
    """One file of records."""

    name: str
    records: Sequence[Record]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A difference between two runs."""

    kind: str
    """The field of `AllowedDifferences` that allows it."""
    text: str
    """Description, with the values of both runs."""


@dataclass(frozen=True, kw_only=True)
class AllowedDifferences:
    """Kinds of differences that the user allows."""

    hosts: bool = False
    workloads: bool = False
    checkpoints: bool = False


@dataclass(frozen=True, kw_only=True)
class Paired:
    """A case of A and the case of B that it is compared with."""

    case: str
    name_in_b: str
    setting: str
    """Label of the setting within a sweep; empty with a single setting."""
    pair: CasePair | None
    problem: str | None = None
    """The reason why there is no pair."""


def read_run(path: Path) -> BenchRun:
    """Read the records of one run.

    Raises:
        RecordError: The file cannot be read, or has records of several runs.
    """
    records = read_records(path)
    check_comparable(records, str(path))
    return BenchRun(name=str(path), records=records)


def differences(a: BenchRun, b: BenchRun) -> list[Difference]:
    """Return the differences that make the figures of two runs incomparable, except settings."""
    result = []
    for kind, part, fields in (("hosts", "host", HOST), ("workloads", "workload", WORKLOAD)):
        in_a, in_b = (getattr(run.records[0], part) for run in (a, b))
        values = [(field, getattr(in_a, field), getattr(in_b, field)) for field in fields]
        texts = [f"{part} {field} is {_short(old)} and {_short(new)}" for field, old, new in values if old != new]
        result += [Difference(kind=kind, text=text) for text in texts]
    checkpoints = [sorted({record.subject.checkpoint_sha256[:12] for record in run.records if record.subject}) for run in (a, b)]
    if all(checkpoints) and checkpoints[0] != checkpoints[1]:
        result.append(Difference(kind="checkpoints", text=f"checkpoint sha256 is {checkpoints[0][0]} and {checkpoints[1][0]}"))
    return result


def _short(value: object) -> str:
    """Return a value as text; of a sha256 only the first 12 digits."""
    return value[:12] if isinstance(value, str) and len(value) == HASH_LENGTH else repr(value)


def check_comparable_runs(a: BenchRun, b: BenchRun, allowed: AllowedDifferences) -> None:
    """Raise an error if two runs differ in a way that is not allowed.

    Raises:
        RecordError: The message names the first difference, both values, and the option that allows it.
    """
    for difference in differences(a, b):
        if not getattr(allowed, difference.kind):
            _refuse(a, b, difference)


def _refuse(a: BenchRun, b: BenchRun, difference: Difference) -> NoReturn:
    raise RecordError(f"{a.name} and {b.name}", f"{difference.text}; compare them anyway with --allow-different-{difference.kind}")


def pair_up(a: BenchRun, b: BenchRun, names: Sequence[tuple[str, str]], allowed: AllowedDifferences) -> list[Paired]:
    """Pair cases of two runs, for each setting that both ran.

    Args:
        a: The earlier run.
        b: The later run.
        names: (case of A, case of B) to pair; empty pairs each case of A with the case of B of the same name.
        allowed: The differences given to `check_comparable_runs`.

    Raises:
        RequestError: A run has no case of that name.
        RecordError: The runs have no setting in common.
    """
    cases_a, cases_b = (list(dict.fromkeys(record.case for record in run.records)) for run in (a, b))
    for name, run, known in [(name, a, cases_a) for name, _ in names] + [(name, b, cases_b) for _, name in names]:
        if name not in known:
            raise RequestError(f"{run.name} has no case '{name}'; it has: {', '.join(known)}")
    settings = _settings(a, b, allowed)
    runs_a, runs_b = _case_runs(a), _case_runs(b)
    same = a.records[0].workload.dataset_sha256 == b.records[0].workload.dataset_sha256
    return [
        _paired(case, name_in_b, label, runs_a.get((case, setting_a)), runs_b.get((name_in_b, setting_b)), same)
        for case, name_in_b in names or [(case, case) for case in cases_a]
        for (setting_a, setting_b), label in settings.items()
    ]


def _settings(a: BenchRun, b: BenchRun, allowed: AllowedDifferences) -> dict[tuple[Setting, Setting], str]:
    """Return (setting of A, setting of B) → label for the settings to compare; they differ only if that is allowed and each run has one."""
    in_a, in_b = (settings_of(run.records) for run in (a, b))
    common = {
        (setting, setting): label for setting, label in in_a.items() if setting in in_b and _length(a, setting) == _length(b, setting)
    }
    if not common and allowed.workloads and len(in_a) == len(in_b) == 1:
        return {(next(iter(in_a)), next(iter(in_b))): ""}
    if not common:
        texts = [", ".join(_setting_text(run, setting) for setting in settings) for run, settings in ((a, in_a), (b, in_b))]
        _refuse(a, b, Difference(kind="workloads", text=f"no setting in common: {texts[0]} and {texts[1]}"))
    return common


def _length(run: BenchRun, setting: Setting) -> int | None:
    return next(record.workload.max_length for record in run.records if setting_of(record) == setting)


def _setting_text(run: BenchRun, setting: Setting) -> str:
    """Return a setting as text: "b1 t2 20tok", or "b1 t2 natural to 20" with the maximum length."""
    words = [NATURAL if value is None else AXES[axis].format(value) for axis, value in vars(setting).items()]
    return " ".join(words) + (f" to {_length(run, setting)}" if setting.tokens is None else "")


def _case_runs(run: BenchRun) -> dict[tuple[str, Setting], CaseRun]:
    rows: dict[tuple[str, Setting], Row] = {
        (row["case"], Setting(batch_size=row["batch_size"], threads=row["threads"], tokens=row["forced_tokens"])): row
        for row in make_rows(run.records)
    }
    good = {key: [record for record in records if record.error is None] for key, records in group(run.records).items()}
    return {key: CaseRun(row=rows[key], good=good[key], baseline=good.get((BASELINE, key[1]), ())) for key in rows}


def _paired(case: str, name_in_b: str, label: str, a: CaseRun | None, b: CaseRun | None, same: bool) -> Paired:
    problem = _problem("A", a) or _problem("B", b)
    pair = CasePair(a=a, b=b, same_images=same) if a and b and problem is None else None
    return Paired(case=case, name_in_b=name_in_b, setting=label, pair=pair, problem=problem)


def _problem(name: str, case: CaseRun | None) -> str | None:
    if case is None:
        return f"not in {name}"
    return None if case.good else f"failed in {name}: {case.row['error']}"
