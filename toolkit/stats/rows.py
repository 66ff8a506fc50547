"""Compute the rows of a report from records: one row of figures per case and setting.

Times are pooled over images and repeats. A speed-up is computed for each repeat, because its cases run close together in time; the row has
the median. Quality changes are relative to the baseline's score on the same images, with a paired bootstrap 95 % confidence interval.
"""

from collections.abc import Iterable, Sequence
from statistics import fmean, median
from typing import Any

import numpy as np

from exporters.gate.retrieval import TOP
from runtimes.errors import RecordError
from toolkit.records.record import BASELINE, ImageTimes, Record
from toolkit.records.settings import SWEPT, Setting, setting_of, settings_of
from toolkit.stats.figures import FIGURES, Figure, joules_per_image, ratios, seconds_per_image, speedups
from toolkit.stats.per_image import per_image
from toolkit.stats.quality import SCORES, changes, scores
from toolkit.stats.roofline import encode_limit_s, token_bytes, token_limit_s
from toolkit.stats.stability import instability_reasons

Row = dict[str, Any]

LATER_SCORES = tuple(key for key in SCORES if key not in ("bleu4", "cider", "rouge_l"))
"""Scores whose keys are the last ones."""

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
    "verdict_text",
    "images_needed",
    "kl",
    "kl_low",
    "kl_high",
    "exact_match_low",
    "exact_match_high",
    "tokens_per_step",
    "device",
    "peak_gpu_bytes",
    "text_seconds",
    "similarity_change",
    "similarity_change_low",
    "similarity_change_high",
    "probability_change",
    "probability_change_low",
    "probability_change_high",
    "score_limit",
    *(f"agreement_{k}{end}" for k in TOP for end in ("", "_low", "_high")),
    *(f"{score}{end}" for score in LATER_SCORES for end in ("", "_change", "_change_low", "_change_high")),
)
"""Keys of a row, in this order; the value is null if a figure was not measured.

- Ratios, speed-ups and changes are relative to the baseline with the same setting.
- `setting` is a label with the fields that differ between the settings of a run; null if there is one setting.
- `forced_tokens` is null for natural caption lengths.
- Times are seconds per image, and for questions per image and question. `text_seconds` is the time of a question, or of a matcher's texts.
- `*_limit_seconds` is the minimum time on this machine with these threads; `*_limit_share` is this minimum divided by the measured time.
- `startup_seconds` is the sum of import, load (which includes hashing) and first caption.
- `tokens_per_second` does not count the first token of a caption.
- `tokens_per_step` is the number of generated tokens per step of the decoder, for each image of a batch. Above 1, steps verified drafts.
- `unstable` is the reason why the times are unstable, or null.
- `approximate` and `drift_limit` (nat per token) are properties of the recipe.
- `verdict` is one of `exporters.gate.verdict` or null; `verdict_text` adds the reason or `images_needed`.
- `kl` is the mean divergence from the baseline, in nat per token.
- `exact_match` is the share of equal captions or answers; of matchers, of images with the same best text.
- `image_recall_<k>` is the share of texts that rank their image among the k best, `text_recall_<k>` that of images that rank one of their
  texts among the k best. `agreement_<k>` is the share of texts whose best image by the baseline is among the k best.
- `similarity_change` and `probability_change` are mean differences of a score; `score_limit` is the limit of both.
"""


def check_comparable(records: Sequence[Record], source: str) -> None:
    """Check that records have the same machine, workload and checkpoint.

    Raises:
        RecordError: They differ. The message has the first field that differs, with both values.
    """
    first = records[0]
    for record in records[1:]:
        for part in ("host", "workload"):
            expected, actual = vars(getattr(first, part)), vars(getattr(record, part))
            for field, value in expected.items():
                if actual[field] != value and field not in SWEPT:
                    raise RecordError(source, f"contains records of different runs: {part} {field} is {value!r} and {actual[field]!r}")
    natural = [record.workload for record in records if record.workload.forced_tokens is None]
    if len(lengths := dict.fromkeys(f"{work.min_length} to {work.max_length}" for work in natural)) > 1:
        raise RecordError(source, f"contains records of different runs: captions of {' and of '.join(lengths)} tokens")
    if len({record.subject.checkpoint_sha256 for record in records if record.subject}) > 1:
        raise RecordError(source, "contains records of different checkpoints")


def make_rows(records: Sequence[Record]) -> list[Row]:
    """Return one row per case and setting, in the order in which they first ran."""
    labels = settings_of(records)
    groups = group(records)
    rows = []
    for (case, setting), case_records in groups.items():
        baseline = [record for record in groups.get((BASELINE, setting), []) if record.error is None]
        rows.append(_row(case, setting, labels[setting] or None, case_records, baseline))
    return rows


def group(records: Sequence[Record]) -> dict[tuple[str, Setting], list[Record]]:
    """Group records by case and setting, with times per captioned image (`per_image`)."""
    groups: dict[tuple[str, Setting], list[Record]] = {}
    for record in records:
        groups.setdefault((record.case, setting_of(record)), []).append(record)
    return {key: per_image(case_records) for key, case_records in groups.items()}


def _row(case: str, setting: Setting, label: str | None, records: Sequence[Record], baseline: Sequence[Record]) -> Row:
    row: Row = dict.fromkeys(KEYS)
    row |= {"case": case, "setting": label, "batch_size": setting.batch_size, "threads": setting.threads, "forced_tokens": setting.tokens}
    good = [record for record in records if record.error is None]
    errors = [record.error for record in records if record.error is not None]
    if errors:
        row["error"] = errors[0] if len(errors) == len(records) else f"{len(errors)} of {len(records)} repeats: {errors[0]}"
    if not good:
        return row
    row |= _times(good)
    row |= _limits(row, good[0]) | {"device": good[0].workload.device or "cpu"}
    row["unstable"] = "; ".join(instability_reasons(good)) or None
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
        row |= changes(quality, next((record.quality for record in baseline if record.quality), ()), subject)
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
        "encode_seconds": _median_of_measured(image.encode_s for image in images),
        "text_seconds": _median_of_measured(image.text_s for image in images),
        "first_token_seconds": _median_of_measured(image.first_token_s for image in images),
        "step_seconds": median(steps) if steps else None,
        "tokens_per_second": len(steps) / sum(steps) if steps else None,
        "tokens_per_image": fmean(tokens) if tokens else None,
        "tokens_per_step": _tokens_per_step(images),
        **{key: _median_figure(key, good, figure) for key, figure in FIGURES.items()},
    }


def _tokens_per_step(times: Sequence[ImageTimes]) -> float | None:
    """Return the generated tokens per step; None if steps were not counted."""
    counted = [(1 + len(time.token_s), time.steps) for time in times if time.steps]
    return sum(tokens for tokens, _ in counted) / sum(steps for _, steps in counted) if counted else None


def _median_figure(key: str, records: Sequence[Record], figure: Figure) -> float | None:
    value = _median_of_measured(map(figure, records))
    return round(value) if value is not None and key.endswith("_bytes") else value


def _median_of_measured(values: Iterable[float | None]) -> float | None:
    """Return the median of the values that are not None; None without any."""
    measured = [value for value in values if value is not None]
    return median(measured) if measured else None


def _limits(row: Row, record: Record) -> Row:
    limits, work = record.limits, record.arithmetic
    if limits is None or work is None:
        return {}
    size = record.workload.batch_size
    # A step reads the weights once for all of its tokens.
    encode_s, token_s = encode_limit_s(limits, work), token_limit_s(limits, work, size) / (row["tokens_per_step"] or 1)
    return {
        "encode_macs": work.encode_float_macs + work.encode_int8_macs,
        "encode_limit_seconds": encode_s,
        "encode_limit_share": encode_s / row["encode_seconds"] if encode_s and row["encode_seconds"] else None,
        "token_bytes": round(token_bytes(work, size)),
        "token_limit_seconds": token_s,
        "token_limit_share": token_s / row["step_seconds"] if row["step_seconds"] and limits.bandwidth_problem is None else None,
    }


def _ratios(row: Row, good: Sequence[Record], baseline: Sequence[Record]) -> Row:
    energy_changes = [ratio - 1 for ratio in ratios(good, baseline, joules_per_image)]
    base = _times(baseline)
    subject = baseline[0].subject
    assert subject is not None
    base["artifact_bytes"] = subject.artifact_bytes
    size_ratios = {
        f"{name}_ratio": row[key] / base[key] if row[key] and base[key] else None
        for name, key in (("size", "artifact_bytes"), ("peak_rss", "peak_rss_bytes"), ("loaded_rss", "loaded_rss_bytes"))
    }
    return {**size_ratios, **_median_and_range("speedup", speedups(good, baseline)), **_median_and_range("energy_change", energy_changes)}


def _median_and_range(name: str, values: Sequence[float]) -> Row:
    return {name: median(values), f"{name}_low": min(values), f"{name}_high": max(values)} if values else {}
