"""Recommend the artifact to ship, with a reason for each row of the report."""

from collections.abc import Sequence
from dataclasses import dataclass

from exporters.gate.drift import drift_text
from exporters.gate.verdict import LOSS, NO_LOSS
from toolkit.records.record import BASELINE
from toolkit.stats.rows import Row
from toolkit.tables.columns import shown_case
from toolkit.tables.words import WORDS, Words

RULE = (
    f"Candidates are artifacts that are not approximate, have stable times and have the verdict {NO_LOSS!r}. If there are none, candidates "
    f"are those that are not judged a {LOSS}. The fastest candidate is chosen. If other candidates' repeats overlap with its repeats, the "
    "smallest of them is chosen."
)
RULE_WITHOUT_QUALITY = (
    "These records have no quality scores, because the images have no reference captions. Candidates are artifacts that are not "
    "approximate and have stable times. The fastest candidate is chosen. If other candidates' repeats overlap with its repeats, the "
    "smallest of them is chosen."
)
UNSTABLE = "unstable"
"""Key of a row: the reason why its times are unstable, or None."""


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """The artifact to ship, and the reasons."""

    chosen: Row | None
    sentence: str
    rule: str
    reasons: tuple[tuple[str, str], ...]
    """(Case with setting, why it was chosen or not), in the order of the rows."""


def recommend(rows: Sequence[Row], words: Words = WORDS["caption"]) -> Recommendation:
    """Choose a row by `RULE`.

    Args:
        rows: From `make_rows`. Only rows with the same forced tokens as the first row are candidates.
        words: Those of the task.
    """
    rows = [row for row in rows if row["forced_tokens"] == rows[0]["forced_tokens"]]
    judged = any(row["verdict_text"] for row in rows)
    reasons = {id(row): reason for row in rows if (reason := _exclusion(row, judged=judged))}
    fit = [row for row in rows if id(row) not in reasons]
    if without_loss := [row for row in fit if row["verdict"] == NO_LOSS]:
        reasons |= {id(row): str(row["verdict_text"]) for row in fit if row["verdict"] != NO_LOSS}
        fit = without_loss
    stable = [row for row in fit if not row[UNSTABLE]] or fit
    reasons |= {id(row): f"unstable: {row[UNSTABLE]}" for row in fit if not any(row is candidate for candidate in stable)}
    rule = RULE if judged else RULE_WITHOUT_QUALITY
    if not stable:
        sentence = "ship none of these: no artifact passes the rule"
        return Recommendation(chosen=None, sentence=sentence, rule=rule, reasons=tuple((shown_case(row), reasons[id(row)]) for row in rows))
    fastest = min(stable, key=lambda row: row["seconds_per_image"])
    tied = [row for row in stable if row["seconds_per_image_low"] <= fastest["seconds_per_image_high"]]
    chosen = min(tied, key=lambda row: (row["artifact_bytes"], row["seconds_per_image"]))
    for row in stable:
        reasons[id(row)] = _comparison(row, chosen, fastest, tied=any(row is candidate for candidate in tied))
    by_case = tuple((shown_case(row), reasons[id(row)]) for row in rows)
    return Recommendation(chosen=chosen, sentence=f"ship {shown_case(chosen)}: {_figures(chosen, words)}", rule=rule, reasons=by_case)


def _exclusion(row: Row, *, judged: bool) -> str | None:
    """Return why a row is excluded regardless of its speed; None for a candidate."""
    if row["case"] == BASELINE:
        return "the baseline"
    if row["error"] is not None:
        return f"failed: {row['error']}"
    if row["approximate"]:
        return "approximate: select it by name if you want it"
    if not judged:
        return None
    if row["verdict_text"] is None:
        return "its quality was not measured"
    return LOSS if row["verdict"] == LOSS else None


def _comparison(row: Row, chosen: Row, fastest: Row, *, tied: bool) -> str:
    """Return why a candidate was chosen or not."""
    if row is chosen:
        return "chosen: the fastest" if row is fastest else f"chosen: as fast as {shown_case(fastest)} within noise, and smaller"
    if tied:
        sizes = f"{row['artifact_bytes'] / 1e6:.0f} MB against {chosen['artifact_bytes'] / 1e6:.0f}"
        return f"as fast within noise, but not smaller ({sizes})"
    return f"slower: {row['seconds_per_image'] / fastest['seconds_per_image']:.2f}x the time of {shown_case(fastest)}"


def _figures(row: Row, words: Words) -> str:
    parts = [_speed(row, words)]
    if row["size_ratio"] is not None:
        parts.append(f"{(row['size_ratio'] - 1) * 100:+.0f} % size")
    if row["verdict_text"]:
        parts.append(f"quality: {row['verdict_text']}, {judged_figure(row)}")
    elif row["exact_match"] is not None:
        parts.append(f"{row['exact_match']:.0%} of {words.text}s unchanged, quality not measured")
    else:
        parts.append("quality not measured")
    if row[UNSTABLE]:
        parts.append(f"but with unstable times ({row[UNSTABLE]})")
    return ", ".join(parts)


def judged_figure(row: Row) -> str:
    """Return the figure that the verdict of a row rests on: its drift, or the change of a matcher's scores."""
    if row["drift"] is None:
        return f"similarity changes by {row['similarity_change']:.4f}, probability by {row['probability_change']:.4f}"
    return f"drift {drift_text(row['drift'], row['drift_low'], row['drift_high'])} nat/token"


def _speed(row: Row, words: Words) -> str:
    if row["speedup"] is None:
        return f"{row['seconds_per_image']:.3f} s per {words.sample} (no baseline was measured)"
    return f"{row['speedup']:.1f}x faster" if row["speedup"] >= 1 else f"{1 / row['speedup']:.1f}x slower"
