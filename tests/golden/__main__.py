"""Write the golden reports anew from `records.jsonl`, after a change of the report that is meant: `python -m tests.golden`.

What changed shows in `git diff tests/golden`. The records are made by hand: powers of two, so that sums are exact on every machine.
"""

from pathlib import Path

from toolkit.bench.record import read_records
from toolkit.bench.render import RENDERERS

HERE = Path(__file__).parent


def main() -> None:
    """Write report.md, report.csv and report.json."""
    records = read_records(HERE / "records.jsonl")
    for layout, render in RENDERERS.items():
        (HERE / f"report.{layout}").write_text(render(records), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
