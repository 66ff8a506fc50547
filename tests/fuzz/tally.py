"""The counts of one part of the fuzzing, and the cases that broke its promise."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass
class Tally:
    """The counts of one part."""

    name: str
    promise: str
    tried: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    """Error code of the toolkit, or another outcome → number of cases."""
    broken: list[str] = field(default_factory=list)
    """Cases that broke the promise, with their outcome."""

    def note(self, outcome: str, broken: str | None = None) -> None:
        """Count a case."""
        self.tried += 1
        self.outcomes[outcome] += 1
        if broken is not None:
            self.broken.append(broken)


def write(tallies: Iterable[Tally], path: Path, **facts: object) -> None:
    """Write the counts as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = [{**asdict(tally), "outcomes": dict(tally.outcomes.most_common())} for tally in tallies]
    path.write_text(json.dumps({**facts, "parts": parts}, indent=1) + "\n", encoding="utf-8")


def render(path: Path) -> str:
    """Return the counts as a Markdown table."""
    kept = json.loads(path.read_text(encoding="utf-8"))
    lines = ["| tried | how many | promise | kept | how they ended |", "|---|---|---|---|---|"]
    for part in kept["parts"]:
        ends = ", ".join(f"{outcome} {count:,}" for outcome, count in part["outcomes"].items())
        lines.append(f"| {part['name']} | {part['tried']:,} | {part['promise']} | {part['tried'] - len(part['broken']):,} | {ends} |")
    return "\n".join(lines) + "\n"
