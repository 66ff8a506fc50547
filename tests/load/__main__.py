"""Run the load test and write its record: `python -m tests.load ARTIFACT --checkpoint CHECKPOINT --base BASE_ARTIFACT --output FILE`."""

import argparse
import json
import shlex
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import runtimes
from tests.load import bars
from tests.load.campaign import CLIENTS, KILLS, MAX_GROWTH, Load, described, growth, measure, row
from tests.load.host import described_host
from tests.load.servers import plain_server, toolkit_server
from toolkit.datasets import load_dataset
from toolkit.records.source_commit import source_commit

BODY_MB = 20
PLAIN_REQUESTS = 200
MIN_REQUESTS = 1_000
"""Fewer requests do not show whether memory grows, or how long probes take."""
MAX_PROBE_S = 0.05
"""Of 99 in 100 probes."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.load", description="Load test of `toolkit serve` on this machine.")
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--requests", type=int, default=2_000)
    parser.add_argument("--checkpoint", type=Path, help="also measure a plain FastAPI server with this checkpoint")
    parser.add_argument("--plain-python", default=sys.executable, help="interpreter of an environment with fastapi and transformers")
    parser.add_argument("--base", type=Path, help="also measure the bars with this artifact")
    parser.add_argument("--output", type=Path, required=True, help="record; parts that are not measured now are kept")
    options = parser.parse_args()
    images = [image.path.read_bytes() for image in load_dataset("sample").images]
    record: dict[str, object] = json.loads(options.output.read_bytes()) if options.output.exists() else {}
    record |= {"date": datetime.now(UTC).date().isoformat(), "commit": source_commit(), "host": described_host()}
    problems: list[str] = []
    if options.requests:
        record["load"], record["memory"] = _campaign(options.artifact, images, options.requests, problems)
    if options.checkpoint:
        record["plain"] = _plain(shlex.split(options.plain_python), options.checkpoint, images, problems)
    if options.base:
        record["bars"] = measured = bars.measure(options.base, images)
        print({name: value for name, value in measured.items() if not isinstance(value, list)})
        problems += [] if measured["bars_met"] else ["a bar is missed"]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for problem in problems:
        print(f"problem: {problem}", file=sys.stderr)
    return bool(problems)


def _campaign(artifact: Path, images: list[bytes], requests: int, problems: list[str]) -> tuple[dict[str, object], dict[str, object]]:
    """Return what is known of the answers, and of memory."""
    with runtimes.load(artifact) as captioner:
        captions = [captioner.caption(image)[0].text for image in images]
    with toolkit_server(artifact, "--max-body", str(BODY_MB)) as (port, process):
        load = Load(port, process, images, captions, bytes(BODY_MB * 1_000_000 + 1), kills=[int(share * requests) for share in KILLS])
        begun = time.perf_counter()
        outcomes = measure(load, requests, CLIENTS)
        seconds = time.perf_counter() - begun
    for outcome in outcomes:
        print(described(outcome))
    print(dict(load.answered))
    problems += load.problems
    grown = growth(load) if requests >= MIN_REQUESTS else None
    if grown is not None and grown > MAX_GROWTH:
        problems.append(f"memory grew to {grown:.3f} of what it was after the first round")
    slow = [outcome for outcome in outcomes if row(outcome)["probe_p99_s"] > MAX_PROBE_S]
    if requests >= MIN_REQUESTS and slow:
        problems.append(f"probes take more than {MAX_PROBE_S} s with {', '.join(str(outcome.clients) for outcome in slow)} clients")
    answers = {
        "artifact": artifact.name,
        "requests": requests,
        "seconds": seconds,
        "answers": dict(load.answered),
        "problems": load.problems,
        "rows": [row(outcome) for outcome in outcomes],
    }
    return answers, {"requests": requests, "growth": grown, "rounds": [asdict(memory) for memory in load.rounds]}


def _plain(python: list[str], checkpoint: Path, images: list[bytes], problems: list[str]) -> dict[str, object]:
    with plain_server(python, checkpoint) as (port, process):
        load = Load(port, process, images, [None] * len(images), b"", kills=[])
        load_rows = []
        for outcome in measure(load, PLAIN_REQUESTS, CLIENTS, rounds=1, share=0):
            print(described(outcome))
            load_rows.append(row(outcome))
    return {"requests": PLAIN_REQUESTS, "resident_bytes": load.rounds[-1].total, "rows": load_rows}


if __name__ == "__main__":
    raise SystemExit(main())
