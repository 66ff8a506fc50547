"""Get the reference run of a checkpoint: what transformers' FP32 model computes for the gate's images."""

import hashlib
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from exporters.checkpoint.checkpoint import Checkpoint
from exporters.checkpoint.reference_cache import cached_reference
from exporters.gate.gate import AnyReference
from exporters.gate.labelled_image import LabelledImage
from runtimes.artifact import json_dataclass
from runtimes.artifact.folder import sha256_of


def find_reference(checkpoint: Checkpoint, images: Sequence[LabelledImage], threads: int) -> AnyReference:
    """Return the reference run from the cache, or run the family's reference and cache it.

    Args:
        checkpoint: The checkpoint.
        images: The gate's images with their captions.
        threads: CPU threads for the run.

    Raises:
        CheckpointError: transformers cannot load the checkpoint.
    """
    content = [
        version("transformers"),
        checkpoint.source.sha256,
        [checkpoint.family.family, checkpoint.family.task],
        [json_dataclass.dump(part) for part in (checkpoint.stored_model, checkpoint.image, checkpoint.tokenizer, checkpoint.defaults)],
        hashlib.sha256(checkpoint.tokenizer_json).hexdigest(),
        [[sha256_of(image.path), image.question, list(image.texts)] for image in images],
    ]

    def run() -> Any:  # noqa: ANN401 - the family's reference
        tied, weights = checkpoint.stored_model.tied, checkpoint.renamed_weights()
        return checkpoint.family.reference(checkpoint.directory, images, checkpoint.defaults, threads, tied=tied, weights=weights)

    return cached_reference(content, images, checkpoint.family.reference_class, run)
