"""Check the relative links, anchors and names of source files in README and docs: `python -m tests.docs.links`, part of `make lint`."""

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

from tests.docs.pages import FENCE, name_of, pages
from tests.paths import ROOT

LINK = re.compile(r"(?<!!)\[(?:[^\[\]]|\[[^\]]*\])*\]\((?P<target>[^()\s]+)\)|<img src=\"(?P<source>[^\"]+)\"")
SOURCE = re.compile(r"`((?:runtimes|exporters|toolkit|tests)/[\w./-]+)`")
"""A file or folder of the repository that a page names."""
HEADING = re.compile(r"^#{1,6} +(?P<text>.+?) *$", re.MULTILINE)


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    slugs: dict[str, int] = {}
    result = set()
    for match in HEADING.finditer(FENCE.sub("", text)):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", match["text"])
        slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        slugs[slug] = slugs.get(slug, -1) + 1
        result.add(slug if not slugs[slug] else f"{slug}-{slugs[slug]}")
    return result


def targets(text: str) -> list[str]:
    """Return the targets of a page's links and images, without those in code."""
    prose = re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))
    return [match["target"] or match["source"] for match in LINK.finditer(prose)]


def broken(sources: Sequence[Path]) -> Iterator[str]:
    """Yield every relative link and source file of pages that is missing, and every page but the first that none of them links to."""
    linked = {sources[0]}
    for page in sources:
        for target in targets(page.read_text(encoding="utf-8")):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            file = (page.parent / unquote(path)).resolve() if path else page
            linked.add(file)
            if not file.exists():
                yield f"{name_of(page)}: {target}: no such file"
            elif anchor and (file.suffix != ".md" or anchor not in anchors(file.read_text(encoding="utf-8"))):
                yield f"{name_of(page)}: {target}: no such heading"
        named = SOURCE.findall(page.read_text(encoding="utf-8"))
        yield from (f"{name_of(page)}: {name}: no such file" for name in named if not (ROOT / name).exists())
    yield from (f"{name_of(page)}: no page links to it" for page in sources if page not in linked)


def main() -> int:
    """Print what is broken; return the exit code."""
    problems = list(broken(pages()))
    for problem in problems:
        print(problem, file=sys.stderr)
    count = sum(len(targets(page.read_text(encoding="utf-8"))) for page in pages())
    print(f"{len(pages())} pages, {count} links and images, {len(problems)} problems")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
