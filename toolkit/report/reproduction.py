"""How to measure the same again: records go in, the commands come out, as far as records know them."""

import re
import shlex
from collections.abc import Sequence

from toolkit.records.record import Record
from toolkit.records.settings import NATURAL, values

ARTIFACTS, CHECKPOINT, RECORDS, REPORT = "build/artifacts", "CHECKPOINT", "records.jsonl", "report.html"
_SUBSET = re.compile(r"(?P<name>.*) \((?P<limit>\d+) of \d+\)")
"""What a dataset is called of which a part was taken."""


def commands(records: Sequence[Record]) -> list[str]:
    """Return the lines to type: export, benchmark, report; CHECKPOINT stands for what the records hold only the hash of."""
    recipes = list(dict.fromkeys(record.subject.recipe for record in records if record.subject and record.subject.recipe))
    work = records[0].workload
    name, limit = whole_set(work.dataset)
    bench = ["toolkit", "bench", ARTIFACTS, "--checkpoint", CHECKPOINT, "--dataset" if work.metric_counter else "--images", name]
    bench += ["--limit", str(limit)] if limit else []
    bench += ["--prompt", work.prompt] if work.prompt else []
    bench += ["--beams", str(work.beams), "--warmup", str(work.warmup), "--repeat", str(work.repeats)]
    for option, axis in (("--batch-size", "batch_size"), ("--threads", "threads"), ("--tokens", "tokens")):
        bench += [option, ",".join(NATURAL if value is None else str(value) for value in values(records, axis))]
    export = ["toolkit", "export", CHECKPOINT, *(part for recipe in recipes for part in ("--recipe", recipe)), "--output", ARTIFACTS]
    report = ["toolkit", "report", RECORDS, "--format", "html", "--output", REPORT, bench[5], name]
    return [shlex.join(line) for line in (*([export] if recipes else []), [*bench, "--output", RECORDS], report)]


def whole_set(name: str) -> tuple[str, int | None]:
    """Return the name of the whole set of pictures, and how many of them were taken if not all."""
    subset = _SUBSET.fullmatch(name)
    return (subset["name"], int(subset["limit"])) if subset else (name, None)
