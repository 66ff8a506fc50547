"""Open the draft table of an artifact, as the manifest or the caller's argument requires."""

import logging
from typing import Literal, TypeAlias

from runtimes.artifact import json_dataclass
from runtimes.artifact.verified_files import VerifiedFiles
from runtimes.decoding.drafts.draft_table import ROLE, read_table
from runtimes.decoding.drafts.drafter import MAX_LEARNING_TOLERANCE, Drafter, DraftSpec
from runtimes.decoding.drafts.ngrams import Predictions
from runtimes.errors import RequestError

logger = logging.getLogger(__name__)

DraftMode: TypeAlias = bool | Literal["learn"] | None
"""None: the manifest's setting. False: no drafts. True: drafts from the table. "learn": also from the captions that are finished."""


def check_draft(mode: object) -> None:
    """Raise RequestError for a value that is no `DraftMode`."""
    if not (mode is None or isinstance(mode, bool) or mode == "learn"):
        raise RequestError(f"draft must be True, False, 'learn' or None, not {mode!r}")


def open_drafter(files: VerifiedFiles, mode: DraftMode, *, stepwise: bool) -> Drafter | None:
    """Return the drafter of an artifact, or None if greedy search runs without drafts.

    A table that cannot be used costs a warning, because captions without drafts are the same.

    Args:
        files: The files of the artifact.
        mode: See `DraftMode`.
        stepwise: Whether the session runs token by token.

    Raises:
        ArtifactCorruptError: The file is missing or differs from the manifest.
        RequestError: The artifact cannot do what `mode` requires.
    """
    manifest = files.artifact.manifest
    if mode is False or (mode is None and not stepwise):
        return None
    if not stepwise:
        raise RequestError(f"{manifest.name} has its whole loop in one graph and cannot use drafts; use a split recipe for them")
    spec, predictions = _read(files)
    if spec is None and mode is not None:
        raise RequestError(f"{manifest.name} has no draft table; export the checkpoint again, or caption without drafts")
    if spec is None or (mode is None and not spec.default):
        return None
    if mode == "learn" and spec.tolerance > MAX_LEARNING_TOLERANCE:
        raise RequestError(
            f"{manifest.name} cannot learn drafts: the number of tokens in a step changes its logits by up to {spec.tolerance:g}, so a "
            "caption could depend on the captions before it; use its draft table, or an FP32 artifact"
        )
    return Drafter(predictions, spec.step_costs, manifest.tokenizer.eos_id, tolerance=spec.tolerance, learning=mode == "learn")


def _read(files: VerifiedFiles) -> tuple[DraftSpec | None, Predictions]:
    """Return the table and its entry in the manifest; (None, {}) without a table that can be used."""
    artifact = files.artifact
    document = artifact.manifest.optional.get(ROLE)
    if document is None:
        return None, {}
    spec, problems = json_dataclass.load(DraftSpec, document)
    if ROLE not in {entry.role for entry in artifact.manifest.files.values()}:
        problems.append(f"there is no file with the role {ROLE!r}")
    if spec is None or problems:
        logger.warning("%s: captions without drafts, because optional.%s cannot be used: %s", artifact.path, ROLE, "; ".join(problems))
        return None, {}
    content = files.read(ROLE)
    try:
        return spec, read_table(content, artifact.manifest.model.vocabulary)
    except ValueError as error:
        logger.warning("%s: captions without drafts, because it %s; export again", artifact.path_of(ROLE), error)
        return None, {}
