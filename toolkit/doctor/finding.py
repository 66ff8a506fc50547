"""What the doctor found: how bad, what, and what to do."""

from dataclasses import dataclass
from typing import Literal

PROBLEM: Literal["problem"] = "problem"
"""Nothing captions here, or the artifact that was asked about does not, or captions wrongly: exit code 1."""
WARNING: Literal["warning"] = "warning"
"""It works, and not as it was meant to."""
NOTE: Literal["note"] = "note"
"""Good to know."""

LEVELS = (PROBLEM, WARNING, NOTE)
"""Worst first."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of advice."""

    level: Literal["problem", "warning", "note"]
    text: str
    remedy: str | None
    """What to do or to type; None where nothing needs to be done."""
