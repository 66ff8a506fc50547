"""Findings of `toolkit doctor`: severity, description and remedy."""

from dataclasses import dataclass
from typing import Literal

PROBLEM: Literal["problem"] = "problem"
"""No engine works, or the given artifact cannot run here or may caption wrongly. The exit code is 1."""
WARNING: Literal["warning"] = "warning"
"""It works, but is slow or outdated."""
NOTE: Literal["note"] = "note"
"""Information without need for action."""

LEVELS = (PROBLEM, WARNING, NOTE)
"""Most severe first."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One finding."""

    level: Literal["problem", "warning", "note"]
    text: str
    remedy: str | None
    """An instruction or a shell command; None if nothing needs to be done."""
