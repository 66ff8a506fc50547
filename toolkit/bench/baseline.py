"""The case that others are compared with: the checkpoint that artifacts name goes in, transformers' FP32 `generate` on it comes out."""

import logging
from pathlib import Path

from runtimes.artifact.folder import open_artifact
from runtimes.errors import CheckpointError
from toolkit.bench.cases import TransformersCase

logger = logging.getLogger(__name__)

SHIPPED = Path("models/blip-mini-coco")
"""The last place to look for the checkpoint of an artifact that was not made from a hub id."""


def find_baseline(checkpoint: str | None, revision: str | None, artifact: Path, *, allow_bin: bool) -> TransformersCase | None:
    """Find the baseline; without its libraries or its checkpoint the artifacts are measured alone, and a warning says so.

    Args:
        checkpoint: Directory or hub id; None takes what the artifact's manifest names, from `models/`, the current folder or the hub.
        revision: Of a hub id.
        artifact: One of those to be compared.
        allow_bin: The checkpoint may be a `.bin`.

    Raises:
        CheckpointError: The checkpoint that was asked for cannot be read.
    """
    source = open_artifact(artifact).manifest.source
    try:
        from exporters.checkpoint.checkpoint import open_checkpoint
    except ModuleNotFoundError as error:
        logger.warning("no baseline: %s is not installed; pip install 'blip-toolkit[export]'", error.name)
        return None
    folders = (Path("models") / source.model, Path(source.model), *(() if source.revision else (SHIPPED,)))
    named = checkpoint or next((str(folder) for folder in folders if folder.is_dir()), source.model)
    try:
        opened = open_checkpoint(named, revision or (None if checkpoint else source.revision), allow_bin=allow_bin)
    except CheckpointError as error:
        if checkpoint is not None:
            raise
        logger.warning("no baseline: %s; name the checkpoint with --checkpoint", error)
        return None
    if checkpoint is None and opened.source.sha256 != source.sha256:
        logger.warning("no baseline: %s was made from another checkpoint than %s; name it with --checkpoint", artifact, named)
        return None
    return TransformersCase(
        named=named,
        checkpoint=opened.directory,
        weight_files=opened.weight_files,
        checkpoint_sha256=opened.source.sha256,
    )
