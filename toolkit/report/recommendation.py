"""Which artifact to ship: rows of a report go in; one of them, a sentence with its figures, and a reason for every other come out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from toolkit.records.record import BASELINE
from toolkit.stats.rows import Row
from toolkit.tables.columns import shown_case

RULE = (
    "Of the artifacts that are not approximate, that were measured stably and that lose nothing clearly (every interval includes no "
    "loss, or drift alone is clear and its upper bound stays within the recipe's limit), the fastest; of those whose repeats overlap with "
    "the fastest one's, the smallest."
)
RULE_WITHOUT_QUALITY = (
    "These records hold no quality, for their images have no captions by people. Of the artifacts that are not approximate and were "
    "measured stably, the fastest; of those whose repeats overlap with the fastest one's, the smallest."
)
UNSTABLE = "unstable"
"""Key of a row: what speaks against its times; null where nothing does."""

SCORES = {"bleu4": "BLEU-4", "cider": "CIDEr-D"}
"""Of which the sentence names one: the first whose change has an interval."""


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """What to ship, and why not the others."""

    chosen: Row | None
    sentence: str
    rule: str
    reasons: tuple[tuple[str, str], ...]
    """Case as shown → why it was chosen or not, in the order of the rows."""


def recommend(rows: Sequence[Row]) -> Recommendation:
    """Choose by `RULE`, among the rows of `make_rows` with as many tokens as the first."""
    rows = [row for row in rows if row["forced_tokens"] == rows[0]["forced_tokens"]]
    judged = any(row["verdict"] for row in rows)
    out = {id(row): reason for row in rows if (reason := _unfit(row, judged=judged))}
    fit = [row for row in rows if id(row) not in out]
    stable = [row for row in fit if not row[UNSTABLE]] or fit
    out |= {id(row): f"unstable: {row[UNSTABLE]}" for row in fit if not any(row is one for one in stable)}
    rule = RULE if judged else RULE_WITHOUT_QUALITY
    if not stable:
        sentence = "ship none of these: none passes the rule"
        return Recommendation(chosen=None, sentence=sentence, rule=rule, reasons=tuple((shown_case(row), out[id(row)]) for row in rows))
    fastest = min(stable, key=lambda row: row["seconds_per_image"])
    tied = [row for row in stable if row["seconds_per_image_low"] <= fastest["seconds_per_image_high"]]
    chosen = min(tied, key=lambda row: (row["artifact_bytes"], row["seconds_per_image"]))
    for row in stable:
        out[id(row)] = _lost(row, chosen, fastest, tied=any(row is one for one in tied))
    reasons = tuple((shown_case(row), out[id(row)]) for row in rows)
    return Recommendation(chosen=chosen, sentence=f"ship {shown_case(chosen)}: {_figures(chosen)}", rule=rule, reasons=reasons)


def _unfit(row: Row, *, judged: bool) -> str | None:
    """Return why a row cannot be shipped whatever its speed."""
    if row["case"] == BASELINE:
        return "the baseline"
    if row["error"] is not None:
        return f"failed: {row['error']}"
    if row["approximate"]:
        return "approximate: only for those who ask for it by name"
    if not judged:
        return None
    if row["verdict"] is None:
        return "its quality was not measured"
    if row["verdict"].startswith("loss") and not _within_limit(row):
        return str(row["verdict"])
    return None


def _within_limit(row: Row) -> bool:
    """Whether drift is the only clear loss, and small enough for the recipe."""
    limit = row["drift_limit"]
    return row["verdict"] == "loss: drift" and limit is not None and bool(row["drift_high"] < limit)


def _lost(row: Row, chosen: Row, fastest: Row, *, tied: bool) -> str:
    """Return why a row that could be shipped was chosen or not."""
    if row is chosen:
        return "chosen: the fastest" if row is fastest else f"chosen: as fast as {shown_case(fastest)} within noise, and smaller"
    if tied:
        sizes = f"{row['artifact_bytes'] / 1e6:.0f} MB against {chosen['artifact_bytes'] / 1e6:.0f}"
        return f"as fast within noise, not smaller ({sizes})"
    return f"slower: {row['seconds_per_image'] / fastest['seconds_per_image']:.2f}x the time of {shown_case(fastest)}"


def _figures(row: Row) -> str:
    parts = [_speed(row)]
    if row["size_ratio"] is not None:
        parts.append(f"{(row['size_ratio'] - 1) * 100:+.0f} % size")
    if scores := [key for key in SCORES if row[f"{key}_change"] is not None]:
        parts.append(_change(row, next((key for key in scores if row[f"{key}_change_low"] is not None), scores[0])))
    if row["verdict"] == "no clear loss":
        parts.append("no clear loss")
    elif row["verdict"]:
        parts.append(f"drift {row['drift']:+.4f} [{row['drift_low']:+.4f}, {row['drift_high']:+.4f}] nat/token within the recipe's limit")
    elif row["exact_match"] is not None:
        parts.append(f"{row['exact_match']:.0%} of captions the same, quality not measured")
    else:
        parts.append("quality not measured")
    if row[UNSTABLE]:
        parts.append(f"but measured unstably ({row[UNSTABLE]})")
    return ", ".join(parts)


def _speed(row: Row) -> str:
    if row["speedup"] is None:
        return f"{row['seconds_per_image']:.3f} s per image (no baseline was measured)"
    return f"{row['speedup']:.1f}x faster" if row["speedup"] >= 1 else f"{1 / row['speedup']:.1f}x slower"


def _change(row: Mapping[str, float | None], key: str) -> str:
    change, low, high = (row[f"{key}_change{end}"] for end in ("", "_low", "_high"))
    ends = "" if low is None or high is None else f" [{low * 100:+.1f}, {high * 100:+.1f}]"
    return f"{SCORES[key]} {(change or 0.0) * 100:+.1f} %{ends}"
