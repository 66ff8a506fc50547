"""Budgets of a search for formats: limits on drift and on the size of the artifact, and the verdict on a result."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from exporters.gate.drift import Drift
from runtimes.errors import RequestError

Verdict = Literal["met", "met on average", "not met"]
UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}
FORM = re.compile(r"(drift|size)\s*<=\s*([0-9.eE+-]+)\s*([a-zA-Z]*)")


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits of a search."""

    drift_nat: float
    size_bytes: int | None = None

    def __str__(self) -> str:
        size = "" if self.size_bytes is None else f", size<={self.size_bytes / 1e6:g}MB"
        return f"drift<={self.drift_nat:g}{size}"

    def judge(self, drift: Drift, size_bytes: int) -> Verdict:
        """Return "met" if the upper bound of drift is within the budget, "met on average" if only the drift itself is, else "not met"."""
        if self.size_bytes is not None and size_bytes > self.size_bytes:
            return "not met"
        if drift.high <= self.drift_nat:
            return "met"
        return "met on average" if drift.nat <= self.drift_nat else "not met"


def parse_budgets(texts: Sequence[str]) -> Budget:
    """Parse budgets such as `drift<=0.01` (nat per token) and `size<=180MB`.

    Raises:
        RequestError: A text is no budget, one is named twice, or there is none for drift.
    """
    limits: dict[str, float] = {}
    for text in texts:
        match = FORM.fullmatch(text.strip())
        try:
            name, number, unit = match.groups() if match else ("", "", "")
            factor = UNITS[unit] if name == "size" else {"": 1}[unit]
            limit = float(number) * factor
        except (KeyError, ValueError) as error:
            raise RequestError(f"{text!r} is no budget; write 'drift<=0.01' (nat per token) or 'size<=180MB' (B, kB, MB, GB)") from error
        if name in limits or not (math.isfinite(limit) and limit > 0):
            raise RequestError(f"{text!r}: a budget is a positive number, and each is named once")
        limits[name] = limit
    if "drift" not in limits:
        raise RequestError("a budget for drift is needed, for example --budget 'drift<=0.01'")
    return Budget(drift_nat=limits["drift"], size_bytes=int(limits["size"]) if "size" in limits else None)
