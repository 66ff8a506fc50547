"""Measure and write a record: `python -m tests.scale ARTIFACT --output FILE`. Exit code 1 if anything is not as promised."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.load.host import described_host
from tests.scale import limits, rate, soak
from toolkit.datasets import load_dataset
from toolkit.records.source_commit import source_commit

LIMITS: dict[str, Callable[[Path, int], Iterator[limits.Measured]]] = {
    "paths": limits.listed_paths,
    "objects": limits.listed_objects,
    "resume": limits.resumed_rows,
}
"""Part of the record → measurement."""
PARTS = ("soak", *LIMITS, "rate")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.scale", description="Measure `toolkit distribute` on this machine.")
    parser.add_argument("artifact", type=Path, help="a tiny one")
    parser.add_argument("--rate", type=Path, metavar="ARTIFACT", help="artifact whose images/s are measured")
    parser.add_argument("--parts", default=",".join(PARTS), help="what to measure  [default: %(default)s]")
    parser.add_argument("--images", type=int, default=10_000, help="of the soak  [default: %(default)s]")
    parser.add_argument("--shard-size", type=int, default=250, help="of the soak  [default: %(default)s]")
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the other parts  [default: %(default)s]")
    parser.add_argument("--output", type=Path, required=True, help="record; parts that are not measured now are kept")
    options = parser.parse_args()
    record: dict[str, Any] = json.loads(options.output.read_bytes()) if options.output.exists() else {}
    versions = {name: version(name) for name in ("pyarrow", "ray", "onnxruntime")}
    record |= {"date": datetime.now(UTC).date().isoformat(), "commit": source_commit(), "host": described_host(), "versions": versions}
    problems: list[str] = []
    for part in options.parts.split(","):
        record[part] = _measure(part, options, problems)
        print(part, json.dumps(record[part]), flush=True)
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for problem in problems:
        print(f"problem: {problem}", file=sys.stderr)
    return bool(problems)


def _measure(part: str, options: argparse.Namespace, problems: list[str]) -> Any:
    if part == "soak":
        seen = soak.soak(options.artifact, options.images, options.shard_size)
        problems += seen.problems()
        return asdict(seen)
    if part == "rate":
        rates = rate.measure(options.rate, [image.path for image in load_dataset("sample").images])
        problems += rate.problems(rates)
        return [asdict(each) for each in rates]
    measured = list(LIMITS[part](options.artifact, options.rows))
    problems += [f"{each.what}: {each.peak_mb:.0f} MB" for each in measured if each.peak_mb >= limits.MAX_MB]
    problems += [f"{each.what}: {each.seconds:.0f} s" for each in measured if part == "resume" and each.seconds >= limits.MAX_RESUME_S]
    return [asdict(each) for each in measured]


if __name__ == "__main__":
    raise SystemExit(main())
