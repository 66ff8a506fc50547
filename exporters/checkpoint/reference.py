"""What the checkpoint itself does with the gate's images."""

import hashlib
from collections.abc import Sequence
from importlib.metadata import version

from exporters.checkpoint.checkpoint import Checkpoint
from exporters.checkpoint.reference_cache import cached_reference
from exporters.gate.gate import Reference
from exporters.gate.labelled_image import LabelledImage
from runtimes.artifact import json_dataclass
from runtimes.artifact.folder import sha256_of


def find_reference(checkpoint: Checkpoint, images: Sequence[LabelledImage], threads: int, *, allow_bin: bool = False) -> Reference:
    """Run the family's reference, or read what an earlier export with the same checkpoint and images kept."""
    content = [
        version("transformers"),
        checkpoint.source.sha256,
        [checkpoint.family.family, checkpoint.family.task],
        [json_dataclass.to_json(part) for part in (checkpoint.stored, checkpoint.image, checkpoint.tokenizer, checkpoint.defaults)],
        hashlib.sha256(checkpoint.tokenizer_json).hexdigest(),
        [[sha256_of(image.path), list(image.captions)] for image in images],
    ]

    def run() -> Reference:
        return checkpoint.family.reference(checkpoint.directory, images, checkpoint.defaults, threads, allow_bin=allow_bin)

    return cached_reference(content, images, run)
