"""An image with its reference captions, as the gate and datasets use it."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class LabelledImage:
    """An image file and its reference captions, which people wrote. There are none if only speed is measured."""

    path: Path
    captions: tuple[str, ...]
