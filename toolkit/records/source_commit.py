"""Find the commit of the source tree that is running; an installed wheel has none."""

import subprocess
from functools import cache
from pathlib import Path

DIRTY = "+dirty"
"""Suffix of the commit if tracked files have changes."""

SHOWN = 7
"""Characters of a commit in tables."""


@cache
def source_commit(file: Path = Path(__file__)) -> str | None:
    """Return the commit of the git tree that tracks a file, with `DIRTY` if the tree has changes; None if no tree tracks the file.

    A wheel that is installed inside some repository is not tracked by it.
    """
    tracked = _git(file, "ls-files", "--error-unmatch", file.name)
    return tracked and _git(file, "describe", "--always", "--exclude=*", "--abbrev=40", f"--dirty={DIRTY}")


def shown_commit(commit: str) -> str:
    """Return the short form of a commit."""
    sha, dirty, _ = commit.partition(DIRTY)
    return sha[:SHOWN] + dirty


def _git(file: Path, *arguments: str) -> str | None:
    try:
        process = subprocess.run(["git", "-C", file.parent, *arguments], capture_output=True, text=True, check=False)  # noqa: S607 - git has no fixed path
    except OSError:  # git is not installed
        return None
    return process.stdout.strip() if process.returncode == 0 else None
