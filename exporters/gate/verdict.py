"""The verdict on the quality of an artifact. Reports, pages, model cards, comparisons and the gate take their words from this module.

Only drift decides. BLEU-4, CIDEr-D, ROUGE-L, equal captions and the KL divergence are shown beside it with their intervals: the scores need
thousands of images to show a change of 2 %, and equal captions and the divergence are no measure of loss.
"""

import math
from dataclasses import dataclass
from typing import Literal

from exporters.gate.drift import Drift

Verdict = Literal["no loss", "loss", "cannot tell"]
NO_LOSS: Verdict = "no loss"
LOSS: Verdict = "loss"
CANNOT_TELL: Verdict = "cannot tell"

MIN_IMAGES = 20
"""Fewer images get no verdict: below that, the coverage of the interval of a skewed figure is not 95 %."""

EXACT_LIMIT_NAT = 0.001
"""Limit of a case whose recipe has none: FP32, and other tools. The rounding of FP32 changes drift by less."""

ERROR_RATE = 0.025
"""Probability that one end of the interval is on the wrong side of the true drift."""

Z = 1.959964 + 1.281552
"""Quantiles of the normal distribution for an error of 2.5 % on one side and a power of 90 %."""

MAX_IMAGES = 1_000_000
"""No larger number of images is named."""

RULE = (
    f"Verdict: {NO_LOSS} if the upper bound of drift is below the recipe's limit; {LOSS} if the lower bound is above 0 and the upper\n"
    f"bound is not below the limit; {CANNOT_TELL} otherwise, with the number of images that would probably be enough.\n"
    f"A case without a recipe's limit has the limit {EXACT_LIMIT_NAT:g} nat/token. Fewer than {MIN_IMAGES} images give no verdict.\n"
    "Only drift decides; the other figures do not."
)


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A verdict and what a reader needs beside it."""

    verdict: Verdict | None
    """None: there are fewer than `MIN_IMAGES` images."""
    images: int
    images_needed: int | None = None
    """If the verdict is `CANNOT_TELL`: number of images that would give another verdict with a probability of 90 %; None if unknown."""

    @property
    def text(self) -> str:
        """The verdict in words."""
        if self.verdict is None:
            return f"no verdict ({self.images} of {MIN_IMAGES} images)"
        return f"{self.verdict} (about {self.images_needed} images would)" if self.images_needed else self.verdict


def judge(drift: Drift, limit_nat: float | None) -> Judgement:
    """Return the verdict on a drift.

    Args:
        drift: From `measure_drift`.
        limit_nat: Maximum drift of the recipe; None: `EXACT_LIMIT_NAT`.
    """
    limit = EXACT_LIMIT_NAT if limit_nat is None else limit_nat
    if drift.images < MIN_IMAGES:
        return Judgement(verdict=None, images=drift.images)
    if within(drift, limit):
        return Judgement(verdict=NO_LOSS, images=drift.images)
    if drift.low > 0:
        return Judgement(verdict=LOSS, images=drift.images)
    return Judgement(verdict=CANNOT_TELL, images=drift.images, images_needed=_images_needed(drift, limit))


def within(drift: Drift, limit_nat: float) -> bool:
    """Return whether the upper bound of drift is below a limit; False for NaN."""
    return drift.high < limit_nat


def comparisons(count: int) -> str:
    """Return a sentence on the number of verdicts and of those that are expected to be wrong."""
    return (
        f"{count} {'comparison' if count == 1 else 'comparisons'} with FP32; each verdict is wrong with a probability of at most about "
        f"{ERROR_RATE:.1%}, so {count * ERROR_RATE:.2g} wrong verdicts are expected at most."
    )


def _images_needed(drift: Drift, limit: float) -> int | None:
    """Return the number of images for a verdict, rounded up to two digits; None above `MAX_IMAGES`.

    n = (z * spread / distance)^2 with the usual z for a power of 90 % (Chow, Shao, Wang, "Sample Size Calculations in Clinical Research").
    The distance is from the measured drift, or 0 if it is negative, to the limit; for a drift above the limit, to 0.
    """
    nat = max(drift.nat, 0.0)
    distance = limit - nat if nat < limit else nat
    if not distance > 0 or not math.isfinite(drift.spread):
        return None
    needed = (Z * drift.spread / distance) ** 2
    if not needed <= MAX_IMAGES:
        return None
    needed = max(needed, drift.images + 1)
    digits = 10 ** max(0, math.ceil(math.log10(needed)) - 2)
    return math.ceil(needed / digits) * digits
