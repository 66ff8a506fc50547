"""How the golden files of each task are read and compared."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from runtimes.artifact.verified_files import VerifiedFiles
from runtimes.engine_registry import load_target
from runtimes.verification.replay import Replay


@dataclass(frozen=True, kw_only=True)
class GoldenTask:
    """Functions of a task, as "module:name"."""

    read: str
    """(files) → content of golden.json, or None without it; it has `sensitivity`."""
    replay: str
    """(loaded model, content, files) → `Replay`."""
    noun: str
    """What is compared, in the plural."""


GOLDEN_TASKS = {
    "caption": GoldenTask(read="runtimes.verification.golden:read_golden", replay="runtimes.verification.replay:replay", noun="captions"),
    "vqa": GoldenTask(read="runtimes.verification.golden:read_golden", replay="runtimes.verification.replay:replay", noun="answers"),
    "matching": GoldenTask(
        read="runtimes.verification.match_golden:read_golden_matches",
        replay="runtimes.verification.match_golden:replay_matches",
        noun="scores",
    ),
}
"""Task of a manifest → its golden files."""


def read_golden(files: VerifiedFiles) -> Any | None:  # noqa: ANN401 - the content depends on the task
    """Return the content of an artifact's golden.json, or None without it.

    Raises:
        ArtifactCorruptError: golden.json is invalid, or does not belong to the artifact.
    """
    return load_target(GOLDEN_TASKS[files.artifact.manifest.task].read)(files)


def replay_function(task: str) -> Callable[[Any, Any, VerifiedFiles], Replay]:
    """Return the function that compares golden results of a task with this machine."""
    function: Callable[[Any, Any, VerifiedFiles], Replay] = load_target(GOLDEN_TASKS[task].replay)
    return function
