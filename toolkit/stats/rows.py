"""Statistics of a report: records go in, one row of figures per case comes out. Everything is computed from records alone.

Times are pooled over images and repeats; a speed-up is the median of the repeats' own ratios, since the cases of a repeat ran next
to each other. Quality changes are relative to the baseline's score on the same images, with a paired bootstrap 95 % interval.
"""

from collections.abc import Iterable, Sequence
from statistics import fmean, median
from typing import Any

import numpy as np

from runtimes.errors import RecordError
from toolkit.records.record import BASELINE, Record
from toolkit.records.settings import SWEPT, Setting, setting_of, settings_of
from toolkit.stats.figures import FIGURES, Figure, joules_per_image, over, seconds_per_image, speedups
from toolkit.stats.per_image import per_image
from toolkit.stats.quality import changes, scores
from toolkit.stats.roofline import encode_limit_s, token_bytes, token_limit_s
from toolkit.stats.stability import doubts

Row = dict[str, Any]

KEYS = (
    "case",
    "runtime",
    "seconds_per_image",
    "seconds_per_image_p90",
    "images_per_second",
    "load_seconds",
    "first_caption_seconds",
    "encode_seconds",
    "step_seconds",
    "tokens_per_image",
    "peak_rss_bytes",
    "loaded_rss_bytes",
    "cpu_seconds_per_image",
    "artifact_bytes",
    "bleu4",
    "cider",
    "rouge_l",
    "drift",
    "exact_match",
    "speedup",
    "size_ratio",
    "peak_rss_ratio",
    "bleu4_change",
    "bleu4_change_low",
    "bleu4_change_high",
    "cider_change",
    "cider_change_low",
    "cider_change_high",
    "recipe_sha256",
    "error",
    "seconds_per_image_low",
    "seconds_per_image_high",
    "speedup_low",
    "speedup_high",
    "import_seconds",
    "read_seconds",
    "first_token_seconds",
    "disk_bytes",
    "loaded_rss_ratio",
    "bleu1",
    "bleu2",
    "bleu3",
    "rouge_l_change",
    "rouge_l_change_low",
    "rouge_l_change_high",
    "drift_low",
    "drift_high",
    "verdict",
    "setting",
    "batch_size",
    "threads",
    "forced_tokens",
    "encode_macs",
    "encode_limit_seconds",
    "encode_limit_share",
    "token_bytes",
    "token_limit_seconds",
    "token_limit_share",
    "startup_seconds",
    "hash_seconds",
    "joules_per_image",
    "energy_change",
    "energy_change_low",
    "energy_change_high",
    "unstable",
    "tokens_per_second",
    "approximate",
    "drift_limit",
)
"""Keys of a row, in this order; null where a figure was not measured.

Ratios and speed-ups are against the baseline with the same setting; changes are relative. `setting` says for people what differs between
the settings of a run (null if nothing does); `forced_tokens` is null where captions have their natural length. Times are per image.
A limit is what this machine could do at best with those threads, its share the limit over the time that was measured. Start-up is import,
load (hashing is part of it) and the first caption together. `unstable` says why the times cannot be trusted (null where they can). Tokens
per second are those after a caption's first. `approximate` and `drift_limit` (nat per token) are what the recipe says of itself.
"""


def check_comparable(records: Sequence[Record], source: str) -> None:
    """Refuse records of different machines or workloads in one table.

    Raises:
        RecordError: Names the first field that differs, with both values.
    """
    first = records[0]
    for record in records[1:]:
        for part in ("host", "workload"):
            ours, theirs = vars(getattr(first, part)), vars(getattr(record, part))
            for field, value in ours.items():
                if theirs[field] != value and field not in SWEPT:
                    raise RecordError(source, f"holds records of different runs: {part} {field} is {value!r} and {theirs[field]!r}")
    natural = [record.workload for record in records if record.workload.forced_tokens is None]
    if len(lengths := dict.fromkeys(f"{work.min_length} to {work.max_length}" for work in natural)) > 1:
        raise RecordError(source, f"holds records of different runs: captions of {' and of '.join(lengths)} tokens")
    if len({record.subject.checkpoint_sha256 for record in records if record.subject}) > 1:
        raise RecordError(source, "holds records of different checkpoints")


def make_rows(records: Sequence[Record]) -> list[Row]:
    """Return a row per case and setting, in the order in which they first ran."""
    labels = settings_of(records)
    groups = group(records)
    rows = []
    for (case, setting), listed in groups.items():
        baseline = [record for record in groups.get((BASELINE, setting), []) if record.error is None]
        rows.append(_row(case, setting, labels[setting] or None, listed, baseline))
    return rows


def group(records: Sequence[Record]) -> dict[tuple[str, Setting], list[Record]]:
    """Return the records of each case and setting, their times per image that could be captioned."""
    groups: dict[tuple[str, Setting], list[Record]] = {}
    for record in records:
        groups.setdefault((record.case, setting_of(record)), []).append(record)
    return {key: per_image(listed) for key, listed in groups.items()}


def _row(case: str, setting: Setting, label: str | None, listed: Sequence[Record], baseline: Sequence[Record]) -> Row:
    row: Row = dict.fromkeys(KEYS)
    row |= {"case": case, "setting": label, "batch_size": setting.batch_size, "threads": setting.threads, "forced_tokens": setting.tokens}
    good = [record for record in listed if record.error is None]
    errors = [record.error for record in listed if record.error is not None]
    if errors:
        row["error"] = errors[0] if len(errors) == len(listed) else f"{len(errors)} of {len(listed)} repeats: {errors[0]}"
    if not good:
        return row
    row |= _times(good)
    row |= _limits(row, good[0])
    row["unstable"] = "; ".join(doubts(good)) or None
    subject = good[0].subject
    assert subject is not None
    row |= {
        "runtime": subject.runtime,
        "artifact_bytes": subject.artifact_bytes,
        "disk_bytes": subject.disk_bytes,
        "recipe_sha256": subject.recipe_sha256,
        "approximate": subject.approximate,
        "drift_limit": subject.drift_limit_nat,
    }
    quality = next((record.quality for record in good if record.quality), ())
    row |= scores(quality)
    if baseline:
        row |= _ratios(row, good, baseline)
        row |= changes(quality, next((record.quality for record in baseline if record.quality), ()))
    return row


def _times(good: Sequence[Record]) -> Row:
    images = [image for record in good for image in record.times]
    per_repeat = [seconds_per_image(record) for record in good]
    totals = [image.total_s for image in images]
    steps = [seconds for image in images for seconds in image.token_s]
    tokens = [image.tokens for record in good for image in record.quality if image.error is None]
    return {
        "seconds_per_image": median(totals),
        "seconds_per_image_low": min(per_repeat),
        "seconds_per_image_high": max(per_repeat),
        "seconds_per_image_p90": float(np.quantile(totals, 0.9)),
        "images_per_second": len(totals) / sum(totals),
        "read_seconds": median(image.read_s for image in images),
        "encode_seconds": _middle_of(image.encode_s for image in images),
        "first_token_seconds": _middle_of(image.first_token_s for image in images),
        "step_seconds": median(steps) if steps else None,
        "tokens_per_second": len(steps) / sum(steps) if steps else None,
        "tokens_per_image": fmean(tokens) if tokens else None,
        **{key: _median(key, good, figure) for key, figure in FIGURES.items()},
    }


def _median(key: str, records: Sequence[Record], figure: Figure) -> float | None:
    value = _middle_of(map(figure, records))
    return round(value) if value is not None and key.endswith("_bytes") else value


def _middle_of(values: Iterable[float | None]) -> float | None:
    """Return the median of what was measured."""
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _limits(row: Row, record: Record) -> Row:
    limits, work = record.limits, record.arithmetic
    if limits is None or work is None:
        return {}
    size = record.workload.batch_size
    encode_s, token_s = encode_limit_s(limits, work), token_limit_s(limits, work, size)
    return {
        "encode_macs": work.encode_float_macs + work.encode_int8_macs,
        "encode_limit_seconds": encode_s,
        "encode_limit_share": encode_s / row["encode_seconds"] if encode_s and row["encode_seconds"] else None,
        "token_bytes": round(token_bytes(work, size)),
        "token_limit_seconds": token_s,
        "token_limit_share": token_s / row["step_seconds"] if row["step_seconds"] else None,
    }


def _ratios(row: Row, good: Sequence[Record], baseline: Sequence[Record]) -> Row:
    energies = [ratio - 1 for ratio in over(good, baseline, joules_per_image)]
    base = _times(baseline)
    subject = baseline[0].subject
    assert subject is not None
    base["artifact_bytes"] = subject.artifact_bytes
    ratio = {
        f"{name}_ratio": row[key] / base[key] if row[key] and base[key] else None
        for name, key in (("size", "artifact_bytes"), ("peak_rss", "peak_rss_bytes"), ("loaded_rss", "loaded_rss_bytes"))
    }
    return {**ratio, **_middle("speedup", speedups(good, baseline)), **_middle("energy_change", energies)}


def _middle(name: str, values: Sequence[float]) -> Row:
    return {name: median(values), f"{name}_low": min(values), f"{name}_high": max(values)} if values else {}
