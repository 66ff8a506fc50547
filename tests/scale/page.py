"""The table of the page "A million and a billion images", from the record of `python -m tests.scale`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.docs.reference import table


def render(file: Path) -> str:
    """Return the Markdown of a record."""
    record = json.loads(file.read_bytes())
    host = record["host"]
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    head = f"{host['cpu']}, {host['cores']} cores, {versions}, measured {record['date']} at commit `{record['commit'][:7]}`."
    notes = [head, *filter(None, [record.get("note")])]
    rows = [row for part, rows_of in PARTS.items() if part in record for row in rows_of(record[part])]
    return "\n\n".join([*notes, table(("what", "measured"), rows)])


def _rate(rates: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    reference = rates[0]["images_per_s"]
    for rate in rates:
        small, large = rate["images"]
        whole = ", ".join(f"{seconds:.1f}" for _, seconds in rate["seconds"])
        ratio = "" if rate is rates[0] else f", {rate['images_per_s'] / reference:.2f} of that of {rates[0]['command']}"
        yield (
            f"shipped model, `onnx-int8`, two processes of one thread, {rate['command']}",
            f"after start {rate['images_per_s']:.1f} images/s{ratio}; {large} images with the start {whole} s "
            f"({len(rate['seconds'])} turns; the rate is that of the last {large - small})",
        )


def _soak(seen: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield (
        f"{seen['inputs']:,} inputs on a local S3 server (files, tar and Parquet files), tiny model, two Ray nodes of one CPU; killed: "
        f"{', '.join(seen['killed'])}",
        f"{seen['seconds']:.0f} s in {seen['shards']} shards; {seen['rows']:,} rows, one per input: {'yes' if seen['once'] else 'no'}; "
        f"{seen['equal']:,} equal those of `toolkit caption`, {seen['errors']} of them errors",
    )
    yield (
        f"the same inputs in {seen['parts']} parts without Ray",
        f"{seen['parts_seconds']:.0f} s; the shards have {'the' if seen['parts_equal'] else 'other'} bytes of the run on Ray",
    )


def _limits(measured: list[dict[str, Any]], verb: str) -> Iterator[tuple[str, str]]:
    for each in measured:
        yield f"{each['what']}, {verb}", f"{each['seconds']:.1f} s, {each['peak_mb']:.0f} MB at most"


PARTS = {
    "rate": _rate,
    "soak": _soak,
    "resume": lambda measured: _limits(measured, "started again"),
    "paths": lambda measured: _limits(measured, "listed"),
    "objects": lambda measured: _limits(measured, "listed with names only"),
}
"""Part of a record → function that returns its rows."""
