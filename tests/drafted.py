"""Copies of artifacts with a draft table, for tests."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from exporters.writing.artifact_writer import write_artifact
from runtimes.artifact.folder import open_artifact
from runtimes.decoding.drafts.draft_table import ROLE, write_table
from runtimes.decoding.drafts.ngrams import MAX_CONTEXT, Context, Prediction

SPEC: dict[str, Any] = {"step_costs": [1.0, 1.1, 1.2, 1.3], "tolerance": 0.0, "default": True, "same_captions": 16, "tokens_per_step": 2.0}


def certain_table(texts: Iterable[Sequence[int]]) -> dict[Context, Prediction]:
    """Return predictions with confidence 1 of the token after each context of the texts; the last text wins."""
    return {
        tuple(ids[position - size : position]): (ids[position], 1.0)
        for ids in texts
        for position in range(1, len(ids))
        for size in range(1, min(MAX_CONTEXT, position) + 1)
    }


def drafted_copy(artifact: Path, into: Path, content: bytes | dict[Context, Prediction] = b"", spec: object = SPEC) -> Path:
    """Write a copy of an artifact with a draft table, or with any content in its file, and with an entry in the manifest."""
    opened = open_artifact(artifact)
    parts = into.with_name(f"{into.name}.parts")
    parts.mkdir(parents=True)
    contents = {entry.role: (Path(name).suffix, (artifact / name).read_bytes()) for name, entry in opened.manifest.files.items()}
    contents[ROLE] = (".npy", content if isinstance(content, bytes) else write_table(content))
    payload = {}
    for role, (suffix, data) in contents.items():
        payload[role] = parts / f"{role}{suffix}"
        payload[role].write_bytes(data)
    return write_artifact(into, replace(opened.manifest, optional={ROLE: spec}), payload, overwrite=False).path
