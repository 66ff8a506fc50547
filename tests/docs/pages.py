"""The pages of the documentation, their generated parts and their code blocks."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.paths import ROOT

README = ROOT / "README.md"
DOCS = ROOT / "docs"
MARKED = re.compile(r"(?P<start><!-- (?P<kind>[a-z-]+)(?: (?P<name>[\w.:-]+))? -->\n).*?(?P<end><!-- end -->)", re.DOTALL)
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE)

Renderer = Callable[[str, Path], str]
"""Makes a generated part from its name and its page's path."""


def pages() -> list[Path]:
    """Return README and all pages of docs."""
    return [README, *sorted(DOCS.rglob("*.md"))]


def name_of(page: Path) -> str:
    """Return a page's path from the repository's root."""
    return page.relative_to(ROOT).as_posix() if page.is_relative_to(ROOT) else page.name


def kinds(page: Path) -> set[str]:
    """Return the kinds of a page's generated parts."""
    return {match["kind"] for match in MARKED.finditer(page.read_text(encoding="utf-8"))}


def rendered(page: Path, renderers: Mapping[str, Renderer]) -> str:
    """Return a page's text with its generated parts made anew, except those of kinds that have no renderer here."""

    def part(match: re.Match[str]) -> str:
        if match["kind"] not in renderers:
            return match[0]
        return f"{match['start']}{renderers[match['kind']](match['name'] or '', page)}{match['end']}"

    return MARKED.sub(part, page.read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    page: Path
    line: int
    """Of its fence."""
    language: str
    tags: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        return f"{name_of(self.page)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, without those of generated parts."""
    text = page.read_text(encoding="utf-8")
    generated = [match.span() for match in MARKED.finditer(text)]
    result = []
    for match in FENCE.finditer(text):
        if any(start <= match.start() < end for start, end in generated):
            continue
        language, *tags = match["info"].split() or [""]
        body = "".join(line.removeprefix(match["indent"]) for line in match["text"].splitlines(keepends=True))
        result.append(Block(page, text.count("\n", 0, match.start()) + 1, language, tuple(tags), body))
    return result
