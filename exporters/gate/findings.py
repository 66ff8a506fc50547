"""The gate's findings in words, for each task."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from exporters.gate import gate, matching

Findings = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class FindingsText:
    """Functions from the findings in a manifest to words."""

    line: Callable[[Findings], str]
    """One line for the export command."""
    quality: Callable[[Findings], str]
    """Comparison with the checkpoint, for model cards."""


TEXTS = {
    "caption": FindingsText(line=gate.findings_line, quality=gate.captions_text),
    "vqa": FindingsText(line=gate.findings_line, quality=gate.captions_text),
    "matching": FindingsText(line=matching.findings_line, quality=matching.quality_text),
}
"""Task → its words."""


def findings_line(task: str, findings: Findings) -> str:
    """Format the findings on an artifact of a task as one line."""
    return TEXTS[task].line(findings)


def card_text(task: str, findings: Findings) -> str:
    """Return the result of the gate in words; a manifest may have none."""
    if "passed" not in findings:
        return "not recorded"
    result = "passed" if findings["passed"] else f"not passed: {findings['problem']}"
    return f"{result}; {TEXTS[task].quality(findings)}"
