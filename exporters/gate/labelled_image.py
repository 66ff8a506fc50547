"""An image with its reference texts, as the gate and datasets use it."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class LabelledImage:
    """An image file and its reference texts, which people wrote: captions, or answers. There are none if only speed is measured."""

    path: Path
    texts: tuple[str, ...]
    question: str | None = None
    """What the texts answer; None for captions."""
