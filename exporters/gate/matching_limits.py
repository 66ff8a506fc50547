"""What a recipe may change in the scores of a matcher, and the verdict on a measured change."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from exporters.gate.verdict import CANNOT_TELL, LOSS, MIN_IMAGES, NO_LOSS, Judgement

EXACT = 1e-4
"""Largest difference of a score of an FP32 artifact. The rounding of FP32 changes scores by less than 1e-5."""


@dataclass(frozen=True, kw_only=True)
class MatchingLimits:
    """What a recipe may change."""

    score: float
    """Mean difference of a score."""
    agreement: Mapping[int, float]
    """k → least share of texts whose best image by the checkpoint is among the k best of the artifact."""


LIMITS = {
    "fp16": MatchingLimits(score=0.005, agreement={1: 0.95, 5: 1.0}),
    "int8": MatchingLimits(score=0.02, agreement={1: 0.85, 5: 0.98}),
    "int4": MatchingLimits(score=0.05, agreement={1: 0.75, 5: 0.95}),
}
"""Precision of a recipe → its limits."""
APPROXIMATE = MatchingLimits(score=0.1, agreement={1: 0.5, 5: 0.85})
"""Limits of a recipe that is approximate."""
OTHERS = MatchingLimits(score=EXACT, agreement={})
"""Limits of FP32 and of other tools in a benchmark. Ranks have none, because rounding changes those of equal scores."""

RULE = (
    f"Verdict: {NO_LOSS} if the upper bound of the change of each score is below the limit, and the shares of texts with FP32's best\n"
    f"image are not below theirs; {LOSS} if an interval is beyond its limit; {CANNOT_TELL} otherwise. The limits are those of the\n"
    f"gate for the precision of the recipe. Fewer than {MIN_IMAGES} images give no verdict."
)


def limits_of(precision: str | None, *, approximate: bool | None) -> MatchingLimits:
    """Return the limits of a recipe; `OTHERS` for FP32 and for cases without a recipe."""
    return APPROXIMATE if approximate else LIMITS.get(precision or "", OTHERS)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A figure with its 95 % confidence interval over images."""

    value: float
    low: float
    high: float


def judge_matching(changes: Sequence[Measured], agreement: Mapping[int, Measured], limits: MatchingLimits, images: int) -> Judgement:
    """Return the verdict on a matcher.

    Args:
        changes: Mean difference of each score from FP32's.
        agreement: k → share of texts whose best image by FP32 is among the k best.
        limits: From `limits_of`.
        images: Number of images.
    """
    shares = [(agreement[k], least) for k, least in limits.agreement.items()]
    if images < MIN_IMAGES:
        return Judgement(verdict=None, images=images)
    if all(each.high < limits.score for each in changes) and all(share.value >= least for share, least in shares):
        return Judgement(verdict=NO_LOSS, images=images)
    if any(each.low > limits.score for each in changes) or any(share.high < least for share, least in shares):
        return Judgement(verdict=LOSS, images=images)
    return Judgement(verdict=CANNOT_TELL, images=images)
