"""An image with captions that people wrote: what the gate scores, and what datasets hold."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class LabelledImage:
    """A file and its reference captions; none where only speed is measured."""

    path: Path
    captions: tuple[str, ...]
