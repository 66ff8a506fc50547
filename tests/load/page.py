"""The tables of the results page on serving, from the record of `python -m tests.load`."""

import json
from pathlib import Path
from typing import Any

ROW = ("clients", "images/s", "p50 s", "p95 s", "p99 s", "refused, then answered", "`/healthz` p99, ms")


def render(file: Path) -> str:
    """Return the Markdown of a record: its parts that were measured."""
    record = json.loads(file.read_bytes())
    lines = [f"{record['host']['cpu']}, {record['host']['cores']} cores, measured {record['date']} at commit `{record['commit'][:7]}`."]
    if note := record.get("note"):
        lines += ["", note]
    for part, render_part in PARTS.items():
        if part in record:
            lines += ["", *render_part(record[part])]
    return "\n".join([*lines, ""])


def _load(load: dict[str, Any]) -> list[str]:
    answers = ", ".join(f"{count:,} {name}" for name, count in sorted(load["answers"].items()))
    return [
        f"`toolkit serve` with `{load['artifact']}`, {load['requests']:,} requests:",
        "",
        *_table(load["rows"]),
        "",
        f"- Answers: {answers}. Wrong or missing: {len(load['problems'])}.",
    ]


def _memory(memory: dict[str, Any]) -> list[str]:
    rounds = ", ".join(f"{each['server'] / 1e6:.1f} + {each['model'] / 1e6:.1f} MB" for each in memory["rounds"])
    return [
        f"Resident memory of server and model process at the end of each round of {memory['requests'] // len(memory['rounds'])} requests: "
        f"{rounds}. The last sum is {memory['growth']:.3f} of the first."
    ]


def _plain(plain: dict[str, Any]) -> list[str]:
    title = f"FastAPI with transformers FP32, {plain['requests']} requests, {plain['resident_bytes'] / 1e6:.0f} MB:"
    return [title, "", *_table(plain["rows"])]


def _bars(bars: dict[str, Any]) -> list[str]:
    rates = [_median(bars[f"{side}_images_per_s"]) for side in ("library", "server")]
    latencies = [1000 * bars[f"{side}_p50_s"] for side in ("library", "server")]
    return [
        f"BLIP-base shapes (`{bars['artifact']}`), library and server in turns:",
        "",
        "| figure | library | server | bar | measured |",
        "|---|---|---|---|---|",
        f"| images/s, median of {len(bars['library_images_per_s'])} turns | {rates[0]:.2f} | {rates[1]:.2f} | ≥ 0.95x | "
        f"{bars['ratio']:.3f}x |",
        f"| p50 with a JPEG of {bars['jpeg_bytes'] / 1e6:.1f} MB, one client, ms | {latencies[0]:.0f} | {latencies[1]:.0f} | ≤ +5 | "
        f"{1000 * bars['added_s']:+.1f} |",
    ]


PARTS = {"load": _load, "memory": _memory, "plain": _plain, "bars": _bars}
"""Part of a record → function that renders it."""


def _table(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        f"| {row['clients']} | {row['images_per_s']:.2f} | {row['p50_s']:.2f} | {row['p95_s']:.2f} | {row['p99_s']:.2f} | "
        f"{row['refused']} | {1000 * row['probe_p99_s']:.0f} |"
        for row in rows
    ]
    return [f"| {' | '.join(ROW)} |", "|" + "---|" * len(ROW), *lines]


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
