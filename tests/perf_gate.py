"""Compare the speed-ups of new records with committed records of the same CPU: `python -m tests.perf_gate RECORDS`, `make perf-gate`.

A speed-up is the ratio to transformers' FP32 in the same run. It depends less on the load and the clock of a machine than seconds do, but
it depends on the CPU. So the committed records must have the same CPU model, CPU features, number of cores and workload.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tests.paths import GOLDEN
from toolkit.records.record import BASELINE, Record, Workload
from toolkit.records.record_file import read_records
from toolkit.stats.rows import check_comparable, make_rows

PUBLISHED = GOLDEN / "published"
NAME = "perf.jsonl"
LIMITS = {"onnx-int8": 0.1}
"""Case → largest slowdown that passes. Other cases are shown."""


def comparable(new: Sequence[Record], folder: Path) -> tuple[Path, list[Record]] | None:
    """Return the file and the committed records of the same machine and workload as new records, or None."""
    for path in sorted(folder.glob(f"*/{NAME}")):
        records = read_records(path)
        if _machine(records[0]) == _machine(new[0]) and _workload(records[0]) == _workload(new[0]):
            return path, records
    return None


def _machine(record: Record) -> tuple[object, ...]:
    return record.host.cpu, record.host.cpu_features, record.host.cores, record.host.system


def _workload(record: Record) -> Workload:
    """Return what the time of an image depends on."""
    return replace(record.workload, repeats=1, dataset_path=None, images_path=None, checkpoint=None, metric_counter=None)


def slowdowns(new: Sequence[Record], committed: Sequence[Record]) -> Iterator[tuple[str, float, float, float]]:
    """Yield case, new speed-up, committed speed-up and slowdown of each case that both have."""
    before = {row["case"]: row["speedup"] for row in make_rows(committed)}
    for row in make_rows(new):
        if row["case"] != BASELINE and row["speedup"] and before.get(row["case"]):
            yield row["case"], row["speedup"], before[row["case"]], before[row["case"]] / row["speedup"] - 1


def check(records: Path, folder: Path = PUBLISHED) -> int:
    """Print the comparison; return the exit code: 1 if a case is slower than its limit allows or was not measured."""
    new = read_records(records)
    check_comparable(new, records.name)
    if (found := comparable(new, folder)) is None:
        features = ", ".join(new[0].host.cpu_features)
        print(f"not compared: no committed records of this CPU ({new[0].host.cpu}; {features}; {new[0].host.cores} cores) and workload")
        return 0
    path, committed = found
    print(f"compared with {path.parent.name}, measured {committed[0].measured_at}, commit {committed[0].commit}")
    measured = list(slowdowns(new, committed))
    failed = LIMITS.keys() - {case for case, *_ in measured}
    for case in sorted(failed):
        print(f"{case:<12} FAILED: it was not measured")
    for case, now, then, slower in measured:
        limit = LIMITS.get(case)
        print(f"{case:<12} {now:.2f}x, committed {then:.2f}x: {slower:+.1%} time" + ("" if limit is None else f", limit {limit:+.0%}"))
        failed |= {case} if limit is not None and slower > limit else set()
    return int(bool(failed))


def main() -> None:
    """Compare the records of a file."""
    parser = argparse.ArgumentParser(prog="python -m tests.perf_gate", description=__doc__)
    parser.add_argument("records", type=Path)
    sys.exit(check(parser.parse_args().records))


if __name__ == "__main__":
    main()
