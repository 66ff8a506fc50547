"""Messages between the server and its model process.

A `ModelJob` starts the process. It replies with a `Loaded`, then with a `Done` for each run, and with `Alive` while a run takes long.
"""

from dataclasses import dataclass, field
from typing import Any

from runtimes.artifact import json_dataclass


@dataclass(frozen=True, kw_only=True)
class WorkItem:
    """An image and what to do with it. The bytes of the image follow the message."""

    id: int
    name: str
    """Name of the image in its row."""
    task: str
    options: dict[str, Any]
    """Fields of the task's request, checked."""
    deadline: float
    """`time.monotonic()` after which nobody waits for the result. On one machine, all processes share this clock."""


@dataclass(frozen=True, kw_only=True)
class Cancelled:
    """Nobody waits for an item any more."""

    cancel: int


@dataclass(frozen=True, kw_only=True)
class Check:
    """The check that a loaded model passed."""

    kind: str
    """"golden results" or "sample image"."""
    results: int
    equal: int
    """Results equal to the golden ones; the others differ in a tie. All, for a sample image."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """The model is loaded and has passed its check."""

    info: dict[str, Any]
    """`runtimes.ModelInfo` as JSON values."""
    check: Check
    load_s: float
    check_s: float
    run_s: float
    """Seconds of the run of one image, once the model was warm."""


@dataclass(frozen=True, kw_only=True)
class ItemResult:
    """The row of an item, or nothing if it was abandoned."""

    id: int
    row: dict[str, Any] | None
    read_s: float = 0.0
    """Decoding and preprocessing of the image."""
    started: float = 0.0
    """`time.monotonic()` when its run began."""
    encode_s: float = 0.0
    decode_s: float = 0.0
    """Steps of the decoder, or the whole loop of a single graph."""


@dataclass(frozen=True, kw_only=True)
class Alive:
    """A run continues: it has generated a token since the last message."""

    alive: int
    """Number of its items."""


@dataclass(frozen=True, kw_only=True)
class Done:
    """The results of the items of one run of the model."""

    results: tuple[ItemResult, ...] = field(default=())


def parsed(kind: Any, message: Any) -> Any:  # noqa: ANN401 - a dataclass and JSON values
    """Return the message of a process of this server as its dataclass."""
    value, problems = json_dataclass.load(kind, message)
    assert value is not None, problems
    return value
