"""What a benchmark can run: each kind of case is a `Case`, which a worker process opens and whose size a record stores.

This module has artifacts and transformers on a checkpoint; `toolkit.bench.peers` has other tools, and is imported only for their folders.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from runtimes.artifact.folder import Artifact
from toolkit.bench.job import Job, Result
from toolkit.bench.roofline.model_costs import arithmetic_of
from toolkit.records.record import BASELINE, Arithmetic, Subject

PEER_NAME = "peer.json"
"""Marks a folder that `toolkit.bench.peers` prepared."""


def is_peer(path: Path) -> bool:
    """Whether a folder is a prepared peer."""
    return (path / PEER_NAME).is_file()


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A case that is ready to caption, in the worker process."""

    captioner: Any
    """Has `caption`, `score`, `caption_ids` and `strip_prompt` of `runtimes.captioner.Captioner`."""
    versions: dict[str, str]
    providers: tuple[str, ...]
    scores: bool = True
    parameter_bytes: int | None = None
    import_s: float = 0.0
    """Part of opening that was the import of libraries."""
    hash_s: float | None = None


Opener = Callable[[], Opened]


class Case(Protocol):
    """One row of the table to be."""

    @property
    def name(self) -> str:
        """Name of the row."""
        ...

    @property
    def checkpoint_sha256(self) -> str:
        """Of the checkpoint that it was made from."""
        ...

    @property
    def device(self) -> str:
        """The device that it is meant for."""
        ...

    def open(self) -> tuple[str, str]:
        """Return "module:function" and a path; in the worker `function(path, job)` imports libraries and returns an `Opener`."""
        ...

    def subject(self, result: Result) -> Subject:
        """Return what ran, with its size."""
        ...

    def arithmetic(self) -> Arithmetic | None:
        """Return the least work of an image on a CPU; None where it is not known."""
        ...


@dataclass(frozen=True, kw_only=True)
class ArtifactCase:
    """An artifact."""

    name: str
    artifact: Artifact

    @property
    def checkpoint_sha256(self) -> str:
        """See `Case`."""
        return self.artifact.manifest.source.sha256

    @property
    def device(self) -> str:
        """See `Case`."""
        return self.artifact.manifest.target.device

    def open(self) -> tuple[str, str]:
        """See `Case`."""
        return "toolkit.bench.cases:artifact_opener", str(self.artifact.path)

    def subject(self, result: Result) -> Subject:
        """See `Case`."""
        manifest, size = self.artifact.manifest, self.artifact.total_bytes
        return Subject(
            runtime=manifest.runtime,
            checkpoint_sha256=self.checkpoint_sha256,
            recipe=manifest.recipe.get("name"),
            recipe_sha256=manifest.recipe.get("sha256"),
            manifest_digest=manifest.digest,
            artifact_bytes=size,
            disk_bytes=size,
            components=self.artifact.component_bytes,
            approximate=manifest.target.approximate,
            drift_limit_nat=manifest.recipe.get("drift_limit_nat"),
        )

    def arithmetic(self) -> Arithmetic | None:
        """See `Case`."""
        return arithmetic_of(self.artifact.manifest) if self.device == "cpu" else None


@dataclass(frozen=True, kw_only=True)
class TransformersCase:
    """The baseline: transformers' FP32 `generate` on the checkpoint."""

    checkpoint: Path
    checkpoint_sha256: str
    weight_files: tuple[Path, ...] = ()
    named: str | None = None
    """Directory or hub id as it was named."""
    name: str = BASELINE
    device: str = "cpu"

    def open(self) -> tuple[str, str]:
        """See `Case`."""
        return "toolkit.bench.cases:transformers_opener", str(self.checkpoint)

    def subject(self, result: Result) -> Subject:
        """See `Case`."""
        assert result.parameter_bytes is not None
        disk_bytes = sum(file.stat().st_size for file in self.weight_files)
        return foreign_subject("transformers", self.checkpoint_sha256, result.parameter_bytes, disk_bytes)

    def arithmetic(self) -> Arithmetic | None:
        """See `Case`; the runner computes it from an artifact's manifest."""
        return None


def foreign_subject(runtime: str, checkpoint_sha256: str, artifact_bytes: int, disk_bytes: int) -> Subject:
    """Return the subject of a case that no recipe of ours made."""
    return Subject(
        runtime=runtime,
        checkpoint_sha256=checkpoint_sha256,
        recipe=None,
        recipe_sha256=None,
        manifest_digest=None,
        artifact_bytes=artifact_bytes,
        disk_bytes=disk_bytes,
    )


def artifact_opener(path: Path, job: Job) -> Opener:
    """Import what loading an artifact needs."""
    from runtimes.loading import load

    def opened() -> Opened:
        captioner = load(path, device=job.device, threads=job.threads)
        info = captioner.session.info()
        return Opened(
            captioner=captioner,
            versions=info.versions,
            providers=info.providers,
            scores="score" in captioner.session.capabilities,
            import_s=captioner.timings.import_s,  # `load` imports the engine's library while it hashes the files
            hash_s=captioner.timings.hash_s,
        )

    return opened


def transformers_opener(path: Path, job: Job) -> Opener:
    """Import transformers."""
    from exporters.families.blip_reference import HfCaptioner, versions

    def opened() -> Opened:
        captioner = HfCaptioner(path, job.threads, allow_bin=job.allow_bin)
        size = 4 * sum(parameter.numel() for parameter in captioner.model.parameters())
        return Opened(captioner=captioner, versions=versions(), providers=("cpu",), parameter_bytes=size)

    return opened
