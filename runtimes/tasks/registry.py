"""The registry of tasks. What `load` returns, command names and messages about a wrong artifact are derived from it.

To add a task, write the class that `load` returns and the command, and add one entry to `TASKS`.
"""

from dataclasses import dataclass

from runtimes.errors import UnknownNameError


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """Description of a task, for use without importing its class."""

    name: str
    """Task of a manifest, and argument `task` of `runtimes.load`."""
    model: str
    """"module:class" of what `runtimes.load` returns, a `runtimes.tasks.loaded_model.LoadedModel`."""
    command: str
    """Name of the command that runs artifacts of this task."""
    text: str
    """What the model returns, as a word for messages."""
    asks: bool = False
    """Whether a text answers a question."""


TASKS: dict[str, TaskSpec] = {
    spec.name: spec
    for spec in (
        TaskSpec(name="caption", model="runtimes.tasks.captioner:Captioner", command="caption", text="caption"),
        TaskSpec(name="vqa", model="runtimes.tasks.answerer:Answerer", command="ask", text="answer", asks=True),
        TaskSpec(name="matching", model="runtimes.tasks.matcher:Matcher", command="match", text="score"),
    )
}
"""Name of a task → entry."""


def find_task(name: str) -> TaskSpec:
    """Return the entry of a task.

    Raises:
        UnknownNameError: The registry has no task of this name.
    """
    if name not in TASKS:
        raise UnknownNameError("task", name, TASKS)
    return TASKS[name]


def wrong_task(path: object, actual: str, expected: str) -> str:
    """Return the message about an artifact of another task than the caller needs, with the command for it.

    Args:
        path: Name of the artifact.
        actual: Task of its manifest.
        expected: Task that the caller needs.
    """
    command = f", or use `toolkit {TASKS[actual].command}`" if actual in TASKS else ""
    return f"{path}: its task is '{actual}', not '{expected}'; load it with task='{actual}'{command}"
