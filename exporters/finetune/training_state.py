"""The state of a fine-tuning run, written atomically, so that a run that was stopped continues with the same results."""

import io
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runtimes.errors import RequestError
from runtimes.storage.atomic_write import write_atomically

STATE = "state.pt"


@dataclass(kw_only=True)
class TrainingState:
    """Everything that the remaining steps depend on."""

    fingerprint: str
    """Hash of the checkpoint, the recipe, the dataset and the settings."""
    readable: list[int]
    """Indices of the images that could be read."""
    step: int = 0
    """Steps that are done."""
    parameters: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    best_step: int = 0
    best_kl: float = float("inf")
    """Smallest mean KL of the held-out part."""
    best_parameters: dict[str, Tensor] = field(default_factory=dict)
    history: list[tuple[int, float]] = field(default_factory=list)
    """(step, mean KL of the held-out part) of each evaluation."""
    seconds: float = 0.0
    """Run time so far."""

    def write(self, folder: Path) -> None:
        """Write the state to a folder.

        Raises:
            OSError: The disk is full, or the folder is not writable.
        """
        content = io.BytesIO()
        torch.save({each.name: getattr(self, each.name) for each in fields(self)}, content)
        write_atomically(folder / STATE, content.getvalue())


def read_state(folder: Path, fingerprint: str) -> TrainingState | None:
    """Return the state in a folder, or None if the run was stopped before its first evaluation.

    Raises:
        RequestError: The state is damaged, or it belongs to a run with another checkpoint, recipe, dataset or settings.
    """
    if not (folder / STATE).is_file():
        return None
    try:
        loaded = torch.load(folder / STATE, map_location="cpu", weights_only=True)
        state = TrainingState(**{each.name: loaded[each.name] for each in fields(TrainingState)})
    except Exception as error:  # damaged files raise exceptions of many classes
        raise RequestError(f"{folder}: its {STATE} is damaged; delete the folder and start again") from error
    if state.fingerprint != fingerprint:
        raise RequestError(
            f"{folder}: the stopped run had another checkpoint, recipe, dataset or settings; repeat them, or delete the folder"
        )
    return state
