"""Write the commands that repeat a measurement, from its records."""

import shlex
from collections.abc import Sequence
from typing import Any

from runtimes.artifact.generation import SAMPLING_SETTINGS
from toolkit.records.record import Record
from toolkit.records.settings import NATURAL, values

ARTIFACTS, RECORDS, REPORT = "build/artifacts-again", "records-again.jsonl", "report-again.html"
"""Outputs of the commands. They differ from the usual names, so that the commands replace no file of the first run."""
CHECKPOINT = "CHECKPOINT"
"""Placeholder for a checkpoint of which records store only the hash."""


def commands(records: Sequence[Record]) -> list[str]:
    """Return the commands export, bench and report; run them in the folder of the first run."""
    recipes = list(dict.fromkeys(record.subject.recipe for record in records if record.subject and record.subject.recipe))
    work = records[0].workload
    checkpoint = work.checkpoint or CHECKPOINT
    images = [
        *(["--dataset", work.dataset_path] if work.dataset_path else []),
        *(["--images", work.images_path] if work.images_path else []),
    ]
    images = images or ["--dataset" if work.metric_counter else "--images", work.dataset]  # the record has no path
    bench = ["toolkit", "bench", ARTIFACTS, "--checkpoint", checkpoint, *images]
    bench += ["--limit", str(work.limit)] if work.limit else []
    bench += ["--prompt", work.prompt] if work.prompt else []
    bench += [] if work.texts else ["--num-beams", str(work.num_beams)]
    bench += ["--warmup", str(work.warmup), "--repeat", str(work.repeats)]
    natural = next((record.workload for record in records if record.workload.forced_tokens is None and not work.texts), None)
    bench += ["--min-length", str(natural.min_length), "--max-length", str(natural.max_length)] if natural else []
    bench += [part for name, value in work.generation.items() if name not in SAMPLING_SETTINGS for part in _option(name, value)]
    tokens = () if work.texts else (("--tokens", "tokens"),)
    for option, axis in (("--batch-size", "batch_size"), ("--threads", "threads"), *tokens):
        bench += [option, ",".join(NATURAL if value is None else str(value) for value in values(records, axis))]
    export = ["toolkit", "export", checkpoint, *(part for recipe in recipes for part in ("--recipe", recipe)), "--output", ARTIFACTS]
    bench += ["--no-draft"] if work.draft is False else []
    report = ["toolkit", "report", RECORDS, "--format", "html", "--output", REPORT, *images]
    return [shlex.join(line) for line in (*([export] if recipes else []), [*bench, "--output", RECORDS], report)]


def _option(name: str, value: Any) -> list[str]:  # noqa: ANN401 - a JSON value of a GenerationConfig
    """Return an option of `toolkit bench` and its value; a list of words repeats the option."""
    option = f"--{name.replace('_', '-')}"
    if name == "bad_words_ids":
        return [part for word in value or [[]] for part in (option, ",".join(map(str, word)))]
    return [option, ",".join(map(str, value)) if isinstance(value, list) else str(value).lower()]
