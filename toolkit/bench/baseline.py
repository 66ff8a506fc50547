"""Find the baseline: transformers' FP32 model of the checkpoint that the artifacts were exported from."""

import logging
from pathlib import Path

from runtimes.artifact.folder import open_artifact
from runtimes.errors import CheckpointError
from toolkit.bench.cases import TransformersCase

logger = logging.getLogger(__name__)

SHIPPED = Path("models/blip-mini-coco")
"""The last folder that is searched, for an artifact that was not exported from a hub id."""


def find_baseline(checkpoint: str | None, revision: str | None, artifact: Path, adapter: Path | None = None) -> TransformersCase | None:
    """Return the baseline's case; without its libraries or its checkpoint, log a warning and return None.

    Args:
        checkpoint: Directory or hub id. None: the name in the artifact's manifest, searched in `models/`, here and on the hub.
        revision: Commit, tag or branch of the hub id.
        artifact: One of the artifacts that the baseline is compared with.
        adapter: Folder of a PEFT adapter that is merged into the checkpoint.

    Raises:
        CheckpointError: `checkpoint` is given and cannot be read.
    """
    source = open_artifact(artifact).manifest.source
    try:
        from exporters.checkpoint.checkpoint import open_checkpoint
    except ModuleNotFoundError as error:
        logger.warning("no baseline: %s is not installed; pip install 'blip-toolkit[export]'", error.name)
        return None
    folders = (Path("models") / source.model, Path(source.model), *(() if source.revision else (SHIPPED,)))
    name = checkpoint or next((str(folder) for folder in folders if folder.is_dir()), source.model)
    if Path(name).is_file():
        raise CheckpointError(name, "is a file; the baseline needs a folder in Hugging Face's layout")
    try:
        opened = open_checkpoint(name, revision or (None if checkpoint else source.revision), adapter=adapter)
    except CheckpointError as error:
        if checkpoint is not None:
            raise
        logger.warning("no baseline: %s; name the checkpoint with --checkpoint", error)
        return None
    if checkpoint is None and opened.source.sha256 != source.sha256:
        logger.warning("no baseline: %s was exported from another checkpoint than %s; name the right one with --checkpoint", artifact, name)
        return None
    return TransformersCase(
        named=name,
        checkpoint=opened.directory,
        tied=opened.stored_model.tied,
        renamed=opened.renamed,
        adapter=adapter,
        weight_files=opened.weight_files,
        checkpoint_sha256=opened.source.sha256,
    )
