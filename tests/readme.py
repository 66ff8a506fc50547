"""Keep README's generated tables equal to committed records: `python -m tests.readme` rewrites them, a test compares.

Records live in tests/golden/published/<name>.jsonl; the README marks where each table stands.
"""

import re
from pathlib import Path

from toolkit.bench.record import Record, read_records
from toolkit.bench.render import render_markdown
from toolkit.bench.rows import check_comparable
from toolkit.peers.table import render_peers

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PUBLISHED = ROOT / "tests" / "golden" / "published"
PEERS = "peers"
"""The table that joins two files of records: this one and the one of quality."""
MARKED = re.compile(r"(<!-- table (?P<name>[a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def with_tables(text: str) -> str:
    """Return the README's text with every marked table rendered from its records."""

    def table(match: re.Match[str]) -> str:
        name = match["name"]
        rendered = render_peers(published(name), published(f"{name}-quality")) if name == PEERS else render_markdown(published(name))
        return f"{match[1]}{rendered}{match[3]}"

    return MARKED.sub(table, text)


def published(name: str) -> list[Record]:
    """Read committed records."""
    path = PUBLISHED / f"{name}.jsonl"
    records = read_records(path)
    check_comparable(records, path.name)
    return records


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text()))
