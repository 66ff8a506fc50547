"""Generated reference pages are those of the code, and every link leads somewhere."""

import re
from importlib import import_module

import pytest

from tests.docs import links
from tests.docs.pages import DOCS, MARKED, README, blocks, kinds, name_of, pages, rendered
from tests.docs.reference import RENDERERS
from toolkit.cli import COMMANDS, main

MAX_README_LINES = 200
LANGUAGES = {"sh", "python", "text", "json"}
COMMAND = re.compile(r"^(?:toolkit|make|pip|python|docker|ray) ", re.MULTILINE)
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*[a-z]")
OTHER_OPTIONS = {
    *("--help", "--version", "--extra-index-url", "--no-index", "--find-links", "--require-hashes", "--task", "--head"),
    *("--data-binary", "--fail", "--form", "--offline", "--silent"),
}
"""Of click, pip, `python -m tests.checkpoints`, `ray start`, curl and systemd-analyze."""
NOT_RUN = {
    "README.md": 2,
    "docs/contributing.md": 1,
    "docs/getting-started.md": 1,
    "docs/guides/benchmark.md": 3,
    "docs/guides/compare-in-ci.md": 1,
    "docs/guides/distribute.md": 1,
    "docs/guides/package-and-verify.md": 1,
    "docs/guides/ray-serve.md": 1,
    "docs/guides/serve.md": 1,
    "docs/guides/tune.md": 2,
    "docs/results/amd-epyc-vnni/quality.md": 1,
}
"""Page → number of blocks that a test does not execute."""


@pytest.mark.parametrize("page", [page for page in pages() if kinds(page) & set(RENDERERS)], ids=name_of)
def test_generated_parts_are_those_of_the_code(page):
    assert rendered(page, RENDERERS) == page.read_text(encoding="utf-8"), "run make docs"


def test_links_and_anchors_lead_somewhere():
    assert list(links.broken(pages())) == []


def test_a_broken_link_and_a_broken_anchor_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A title\n[a](#a-title) [b](#b-title) [c](none.md) `[d](code.md)`\n\n```text\n[e](code.md)\n```\n")
    assert list(links.broken([page])) == ["page.md: #b-title: no such heading", "page.md: none.md: no such file"]


def test_readme_is_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= MAX_README_LINES


def test_every_decision_is_in_the_index_under_its_title():
    index = (DOCS / "decisions" / "README.md").read_text(encoding="utf-8")
    files = sorted((DOCS / "decisions").glob("0*.md"))
    assert [int(file.name[:4]) for file in files] == list(range(1, len(files) + 1))
    for file in files:
        number, _, title = file.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ").partition(". ")
        assert number == str(int(file.name[:4]))
        assert f"[{title}]({file.name})" in index


def test_blocks_have_a_language_and_few_are_not_run():
    every_block = [block for page in pages() for block in blocks(page)]
    assert {block.language for block in every_block} <= LANGUAGES, [str(block) for block in every_block if block.language not in LANGUAGES]
    commands = [block for block in every_block if block.language not in ("sh", "python") and COMMAND.search(block.text)]
    assert not commands, [str(block) for block in commands]
    assert {tag for block in every_block for tag in block.tags} == {"not-run"}
    not_run = [block for block in every_block if block.tags]
    print(*(f"not run: {block}: {block.text.splitlines()[0]}" for block in not_run), sep="\n")
    counts = {name_of(page): len([block for block in not_run if block.page == page]) for page in pages()}
    assert {name: count for name, count in counts.items() if count} == NOT_RUN


def test_options_that_pages_name_are_those_of_the_commands():
    """Decisions may name options of their time."""
    commands = [import_module(module).command for module, _ in COMMANDS.values()]
    known = {
        name for command in [main, *commands] for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)
    } | OTHER_OPTIONS
    for page in pages():
        named = set(OPTION.findall(page.read_text(encoding="utf-8")))
        assert page.is_relative_to(DOCS / "decisions") or named <= known, (name_of(page), named - known)


def test_make_targets_that_pages_name_are_there():
    makefile = (README.parent / "Makefile").read_text(encoding="utf-8")
    for page in pages():
        for target in re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), (name_of(page), target)


def test_generated_parts_have_content():
    """A mark that no renderer fits would leave its part empty."""
    parts = [match for page in pages() for match in MARKED.finditer(page.read_text(encoding="utf-8"))]
    assert len(parts) > 30
    assert [match["start"] for match in parts if match[0] == match["start"] + match["end"]] == []
