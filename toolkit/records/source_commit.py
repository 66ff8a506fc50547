"""The commit of the source tree that runs: an installed wheel has none."""

import subprocess
from functools import cache
from pathlib import Path

DIRTY = "+dirty"
"""Follows a commit whose tracked files were changed since."""

SHOWN = 7
"""Characters of a commit that people are shown."""


@cache
def source_commit(file: Path = Path(__file__)) -> str | None:
    """Return the commit of the tree that tracks a source file, and whether the tree was changed; None if no tree tracks it.

    A wheel installed below somebody's repository is not tracked by it.
    """
    tracked = _git(file, "ls-files", "--error-unmatch", file.name)
    return tracked and _git(file, "describe", "--always", "--exclude=*", "--abbrev=40", f"--dirty={DIRTY}")


def shown_commit(commit: str) -> str:
    """Shorten a commit for people."""
    sha, dirty, _ = commit.partition(DIRTY)
    return sha[:SHOWN] + dirty


def _git(file: Path, *arguments: str) -> str | None:
    try:
        ended = subprocess.run(["git", "-C", file.parent, *arguments], capture_output=True, text=True, check=False)  # noqa: S607 - git has no fixed path
    except OSError:  # git is not installed
        return None
    return ended.stdout.strip() if ended.returncode == 0 else None
