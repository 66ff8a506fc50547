"""The tables of the results page on serving, from the record of `python -m tests.load`."""

import json
from pathlib import Path
from typing import Any

ROW = ("clients", "images/s", "p50 s", "p95 s", "p99 s", "refused, then answered", "`/healthz` p99, ms")


def render(file: Path) -> str:
    """Return the Markdown of a record."""
    record = json.loads(file.read_bytes())
    load, plain, bars = record["load"], record["plain"], record["bars"]
    return "\n".join(
        [
            f"{record['host']['cpu']}, {record['host']['cores']} cores, measured {record['date']} at commit `{record['commit'][:7]}`.",
            "",
            f"`toolkit serve` with `{load['artifact']}`, {load['requests']:,} requests:",
            "",
            *_table(load["rows"]),
            "",
            f"- Answers: {', '.join(f'{count:,} {name}' for name, count in sorted(load['answers'].items()))}. Wrong or missing: {len(load['problems'])}.",
            f"- Resident memory of both processes at the end: {load['resident_bytes'] / 1e6:.0f} MB, {load['memory_growth']:.3f} of that after 500 answers.",
            "",
            f"FastAPI with transformers FP32, {plain['requests']} requests, {plain['resident_bytes'] / 1e6:.0f} MB:",
            "",
            *_table(plain["rows"]),
            "",
            f"BLIP-base shapes (`{bars['artifact']}`), library and server in turns:",
            "",
            "| figure | library | server | bar | |",
            "|---|---|---|---|---|",
            f"| images/s, median of {len(bars['library_images_per_s'])} turns | {_median(bars['library_images_per_s']):.2f} | "
            f"{_median(bars['server_images_per_s']):.2f} | ≥ 0.95x | {bars['ratio']:.3f}x |",
            f"| p50 with a JPEG of {bars['jpeg_bytes'] / 1e6:.1f} MB, one client | {1000 * bars['library_p50_s']:.0f} ms | "
            f"{1000 * bars['server_p50_s']:.0f} ms | ≤ +5 ms | {1000 * bars['added_s']:+.1f} ms |",
            "",
        ]
    )


def _table(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        f"| {row['clients']} | {row['images_per_s']:.2f} | {row['p50_s']:.2f} | {row['p95_s']:.2f} | {row['p99_s']:.2f} | {row['refused']} | "
        f"{1000 * row['probe_p99_s']:.0f} |"
        for row in rows
    ]
    return [f"| {' | '.join(ROW)} |", "|" + "---|" * len(ROW), *lines]


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
