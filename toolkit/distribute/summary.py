"""The summary of a run, from the stats of its shards."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from runtimes.errors import EnvironmentFailedError
from toolkit.distribute.part import Part
from toolkit.distribute.run_folder import Run
from toolkit.distribute.shard import Stats


def summarize(run: Run, part: Part, stats: Iterable[Stats], added: int, seconds: float) -> dict[str, Any]:
    """Return the summary as JSON values.

    Args:
        run: The run.
        part: The part of it.
        stats: Stats of the finished shards of the part.
        added: Rows that this command captioned.
        seconds: Time for them.
    """
    finished, errors = {each.shard: each for each in stats}, Counter[str]()
    for each in finished.values():
        errors.update(each.errors)
    shards = part.shards(run)
    return {
        "inputs": run.rows,
        "part": f"{part.number}/{part.count}",
        "rows": sum(each.rows for each in finished.values()),
        "new_rows": added,
        "seconds": round(seconds, 3),
        "images_per_s": round(added / seconds, 3) if seconds > 0 else None,
        "errors": dict(sorted(errors.items())),
        "retryable": errors[EnvironmentFailedError.code],
        "duplicates": sum(each.duplicates for each in finished.values()),
        "tokens": sum(each.tokens for each in finished.values()),
        "shards": len(shards),
        "unfinished_shards": [number for number in shards if number not in finished],
        "manifests": [manifest.digest for manifest in run.manifests],
        "artifact": run.settings["artifact"],
    }


def text_of(summary: dict[str, Any], folder: str) -> str:
    """Return the summary as text."""
    failed = sum(summary["errors"].values())
    codes = ", ".join(f"{count:,} {code}" for code, count in summary["errors"].items())
    ready = summary["shards"] - len(summary["unfinished_shards"])
    lines = [
        f"{summary['rows']:,} rows in {ready:,} of {summary['shards']:,} shards: {folder}/shards",
        f"{summary['duplicates']:,} images have the bytes of another one; {failed:,} errors{f' ({codes})' if codes else ''}",
    ]
    if summary["retryable"]:
        lines.append(f"try {summary['retryable']:,} of them again with --retry-errors {EnvironmentFailedError.code}")
    return "\n".join(lines)
