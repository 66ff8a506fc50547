"""The columns of the Markdown and HTML tables: title with unit, and the format of a cell. Rows have SI units."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from exporters.gate.drift import drift_text
from toolkit.records.record import BASELINE
from toolkit.stats.growth import SLACK
from toolkit.stats.rows import Row


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    title: str
    cell: Callable[[Row], str]
    lowest: str | None = None
    """Key of the row's figure, if its lowest value is the best."""
    highest: str | None = None
    """Key of the row's figure, if its highest value is the best."""


NOT_MEASURED = "-"


def number(key: str, pattern: str, scale: float = 1.0) -> Callable[[Row], str]:
    """Return a cell that formats `row[key] * scale` with a pattern."""
    return lambda row: NOT_MEASURED if row[key] is None else pattern.format(row[key] * scale)


def _seconds(row: Row) -> str:
    if row["seconds_per_image"] is None:
        return NOT_MEASURED
    spread = (row["seconds_per_image_high"] - row["seconds_per_image_low"]) / 2
    if spread == 0:  # there is one repeat
        return f"{row['seconds_per_image']:.3f}"
    return f"{row['seconds_per_image']:.3f} ± {spread:.3f}"


def _speedup(row: Row) -> str:
    if row["speedup"] is None:
        return NOT_MEASURED
    if row["case"] == BASELINE:
        return "1x"
    return f"{row['speedup']:.2f}x [{row['speedup_low']:.2f}, {row['speedup_high']:.2f}]"


def _megabytes(key: str, ratio: str) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        if row[key] is None:
            return NOT_MEASURED
        share = "" if row[ratio] is None or row["case"] == BASELINE else f" ({row[ratio]:.0%})"
        return f"{row[key] / 1e6:.0f}{share}"

    return cell


def _joules(row: Row) -> str:
    if row["joules_per_image"] is None:
        return "not measured"
    share = "" if row["energy_change"] is None or row["case"] == BASELINE else f" ({row['energy_change']:+.0%})"
    return f"{row['joules_per_image']:.2f}{share}"


def _change(key: str) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        score, change = row[key], row[f"{key}_change"]
        if score is None:
            return NOT_MEASURED
        if change is None or row["case"] == BASELINE:
            return f"{score:.3f}"
        low, high = row[f"{key}_change_low"], row[f"{key}_change_high"]
        ends = "" if low is None or high is None else f" [{low * 100:+.1f}, {high * 100:+.1f}]"
        return f"{score:.3f} {change * 100:+.1f}{ends}"

    return cell


def _drift(row: Row) -> str:
    if row["drift"] is None or row["case"] == BASELINE:
        return NOT_MEASURED if row["drift"] is None else "0"
    return drift_text(row["drift"], row["drift_low"], row["drift_high"])


def _divergence(row: Row) -> str:
    if row["kl"] is None:
        return "0" if row["case"] == BASELINE and row["drift"] is not None else NOT_MEASURED
    ends = "" if row["kl_low"] is None or row["kl_high"] is None else f" [{row['kl_low']:.4f}, {row['kl_high']:.4f}]"
    return f"{row['kl']:.4f}{ends}"


def _measured(key: str, pattern: str) -> Callable[[Row], str]:
    """Return a cell with a figure and its interval."""

    def cell(row: Row) -> str:
        figure, *ends = (row[f"{key}{end}"] for end in ("", "_low", "_high"))
        if figure is None or row["case"] == BASELINE:
            return NOT_MEASURED if figure is None else pattern.format(figure)
        return pattern.format(figure) + ("" if None in ends else f" [{pattern.format(ends[0])}, {pattern.format(ends[1])}]")

    return cell


def _same_captions(row: Row) -> str:
    share, low, high = (row[f"exact_match{end}"] for end in ("", "_low", "_high"))
    if share is None:
        return NOT_MEASURED
    return f"{share:.0%}" if row["case"] == BASELINE or low is None else f"{share:.0%} [{low:.0%}, {high:.0%}]"


def shown_case(row: Row) -> str:
    """Return the case's name, followed by its setting in a sweep."""
    return f"{row['case']} {row['setting']}" if row["setting"] else str(row["case"])


UNSTABLE = " !"
"""Mark of a case with unstable times."""

CASE = Column("case", shown_case)
CASE_WITH_MARK = Column("case", lambda row: shown_case(row) + (UNSTABLE if row["unstable"] else ""))
"""For tables of times."""

# Quality columns mark no best figure: differences within an interval are noise. The verdict column has the result.

SPEED = (
    CASE_WITH_MARK,
    Column("s/image", _seconds, lowest="seconds_per_image"),
    Column("speed-up", _speedup, highest="speedup"),
    Column("p90 s", number("seconds_per_image_p90", "{:.3f}"), lowest="seconds_per_image_p90"),
    Column("images/s", number("images_per_second", "{:.2f}"), highest="images_per_second"),
    Column("tokens", number("tokens_per_image", "{:.1f}")),
)

TOKENS_PER_STEP = Column("tokens/step", number("tokens_per_step", "{:.2f}"), highest="tokens_per_step")
"""Added to SPEED if a case verified drafts."""

ENERGY = Column("J/image", _joules, lowest="joules_per_image")
"""Added to COST if the energy of a case was measured."""

COST = (
    CASE,
    Column("CPU s/image", number("cpu_seconds_per_image", "{:.2f}"), lowest="cpu_seconds_per_image"),
    Column("loaded MB", _megabytes("loaded_rss_bytes", "loaded_rss_ratio"), lowest="loaded_rss_bytes"),
    Column("peak MB", _megabytes("peak_rss_bytes", "peak_rss_ratio"), lowest="peak_rss_bytes"),
    Column("size MB", _megabytes("artifact_bytes", "size_ratio"), lowest="artifact_bytes"),
)

ON_GPU = (
    Column("device", lambda row: str(row["device"])),
    Column("GPU MB", number("peak_gpu_bytes", "{:.0f}", 1e-6), lowest="peak_gpu_bytes"),
)

QUALITY = (
    CASE,
    Column("drift nat/token", _drift),
    Column("limit", number("drift_limit", "{:g}")),
    Column("verdict", lambda row: row["verdict_text"] or NOT_MEASURED),
)

BESIDE = (
    CASE,
    Column("KL from FP32, nat/token", _divergence),
    Column("same captions", _same_captions),
)
"""Agreement with FP32. It has no verdict: a caption or a distribution that changes need not be worse."""

SCORES = (
    CASE,
    Column("BLEU-4, change %", _change("bleu4")),
    Column("CIDEr-D, change %", _change("cider")),
    Column("ROUGE-L, change %", _change("rouge_l")),
)

ANSWER_SCORES = (CASE, Column("VQA accuracy, change %", _change("vqa_accuracy")))

MATCHING_QUALITY = (
    CASE,
    Column("change of similarity", _measured("similarity_change", "{:.4f}")),
    Column("change of probability", _measured("probability_change", "{:.4f}")),
    Column("limit", number("score_limit", "{:g}")),
    Column("verdict", lambda row: row["verdict_text"] or NOT_MEASURED),
)

RANKS = (
    CASE,
    Column("FP32's best image first", _measured("agreement_1", "{:.0%}")),
    Column("among 5", _measured("agreement_5", "{:.0%}")),
    Column("same best text", _same_captions),
)

RETRIEVAL = (
    CASE,
    Column("image R@1, change %", _change("image_recall_1")),
    Column("image R@5, change %", _change("image_recall_5")),
    Column("text R@1, change %", _change("text_recall_1")),
    Column("text R@5, change %", _change("text_recall_5")),
)

AGREEMENT = (CASE, Column("same captions", _same_captions))
"""Replaces QUALITY, BESIDE and SCORES if the images have no references."""

START = (
    CASE,
    Column("disk MB", number("disk_bytes", "{:.0f}", 1e-6), lowest="disk_bytes"),
    Column("import s", number("import_seconds", "{:.2f}"), lowest="import_seconds"),
    Column("load s", number("load_seconds", "{:.2f}"), lowest="load_seconds"),
    Column("hash s", number("hash_seconds", "{:.2f}")),
    Column("first caption s", number("first_caption_seconds", "{:.3f}"), lowest="first_caption_seconds"),
    Column("total s", number("startup_seconds", "{:.2f}"), lowest="startup_seconds"),
)

STAGES = (
    CASE,
    Column("read ms", number("read_seconds", "{:.1f}", 1e3), lowest="read_seconds"),
    Column("encode ms", number("encode_seconds", "{:.1f}", 1e3), lowest="encode_seconds"),
    Column("first token ms", number("first_token_seconds", "{:.2f}", 1e3), lowest="first_token_seconds"),
    Column("token ms", number("step_seconds", "{:.2f}", 1e3), lowest="step_seconds"),
)

TEXT_STAGE = Column("texts ms", number("text_seconds", "{:.2f}", 1e3), lowest="text_seconds")
"""Added to STAGES if a case reads given texts: questions, or the texts of a matcher."""

LIMITS = (  # share: the limit divided by the measured time
    CASE,
    Column("GMAC", number("encode_macs", "{:.1f}", 1e-9)),
    Column("encode ms", number("encode_seconds", "{:.1f}", 1e3)),
    Column("limit ms", number("encode_limit_seconds", "{:.1f}", 1e3)),
    Column("share", number("encode_limit_share", "{:.0%}")),
    Column("token MB", number("token_bytes", "{:.1f}", 1e-6)),
    Column("token ms", number("step_seconds", "{:.2f}", 1e3)),
    Column("limit ms", number("token_limit_seconds", "{:.2f}", 1e3)),
    Column("share", number("token_limit_share", "{:.0%}")),
)

EXCEEDS = " ^"
"""Mark of a ratio that exceeds its limit in every repeat."""


def _ratio(what: str) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        if row[f"{what}_ratio"] is None:
            return NOT_MEASURED
        ratio, limit = row[f"{what}_ratio"], row[f"{what}_ratio_limit"]
        return f"{ratio:.2f}x {'≤' if ratio <= limit else '>'} {limit:.2f}x{EXCEEDS if what in row['exceeds'] else ''}"

    return cell


GROWTH = (
    Column("case", lambda row: row["case"] + (UNSTABLE if row["unstable"] else "")),
    Column("fixed", lambda row: row["fixed"]),
    Column("growth", lambda row: f"{row['parameter']} {row['value']}"),
    Column("s/image", number("seconds_per_image", "{:.3f}")),
    Column("ratio, limit", _ratio("seconds")),
    Column("peak MB", number("peak_rss_bytes", "{:.0f}", 1e-6)),
    Column("ratio, limit", _ratio("peak_rss")),
)

GROWTH_LEGEND = (
    "Ratios are relative to the smallest value of the same series, and are compared with a limit.\n"
    "Limit of time: the time per image does not grow with the batch size or the threads; with tokens, only the time after the encoder.\n"
    "Limit of memory: only the memory that is allocated after loading grows, in proportion to the value.\n"
    f"{EXCEEDS.strip()} marks a ratio that exceeds its limit by more than {SLACK - 1:.0%} in every repeat."
)


def component_columns(rows: Sequence[Row]) -> list[Column]:
    """Return one column per component in the rows."""
    return [Column("case", lambda row: row["case"]), *(_component_mb(name) for name in rows[0] if name != "case")]


def _component_mb(name: str) -> Column:
    return Column(f"{name} MB", lambda row: NOT_MEASURED if row[name] is None else f"{row[name] / 1e6:.2f}")
