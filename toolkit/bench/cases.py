"""The cases of a benchmark: `Case` and its implementations for artifacts and for transformers.

A worker process opens a case; a record stores its size. `toolkit.bench.peers` implements `Case` for other tools; it is imported only when
one of its folders is measured, because wheels do not contain it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from runtimes.artifact.folder import Artifact
from toolkit.bench.job import CaseJob, Result
from toolkit.bench.roofline.model_costs import arithmetic_of
from toolkit.records.record import BASELINE, Arithmetic, Subject

PEER_NAME = "peer.json"
"""File that marks a folder prepared by `toolkit.bench.peers`."""


def is_peer(path: Path) -> bool:
    """Return whether a folder is a prepared peer."""
    return (path / PEER_NAME).is_file()


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A loaded case in the worker process."""

    captioner: Any
    """Has the methods `caption`, `token_log_probabilities`, `text_ids` and `strip_prompt` of `runtimes.tasks.captioner.Captioner`."""
    versions: dict[str, str]
    providers: tuple[str, ...]
    scores: bool = True
    """Whether it can score references."""
    parameter_bytes: int | None = None
    import_s: float = 0.0
    """Seconds of opening that were spent on importing libraries."""
    hash_s: float | None = None


Opener = Callable[[], Opened]


class Case(Protocol):
    """Something that the benchmark measures: one row of the table."""

    @property
    def name(self) -> str:
        """Name of the row."""
        ...

    @property
    def checkpoint_sha256(self) -> str:
        """sha256 of its checkpoint."""
        ...

    @property
    def device(self) -> str:
        """The device that it targets."""
        ...

    @property
    def streams(self) -> bool:
        """Whether several threads of one process caption at once with it, in a throughput measurement."""
        ...

    def open(self) -> tuple[str, str]:
        """Return "module:function" and a path. In the worker, `function(path, job)` imports libraries and returns an `Opener`."""
        ...

    def subject(self, result: Result) -> Subject:
        """Return a description of what ran, with its size in bytes."""
        ...

    def arithmetic(self) -> Arithmetic | None:
        """Return the minimum work of one image on a CPU; None if it is unknown."""
        ...


@dataclass(frozen=True, kw_only=True)
class ArtifactCase:
    """An exported artifact."""

    name: str
    artifact: Artifact
    streams: bool = False

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
    tied: bool = True
    renamed: bool = False
    """Whether the names in its weight files differ from those of transformers."""
    adapter: Path | None = None
    """Folder of a PEFT adapter that is merged into the checkpoint."""
    named: str | None = None
    """Directory or hub id as the user wrote it."""
    name: str = BASELINE
    device: str = "cpu"
    streams: bool = False

    def open(self) -> tuple[str, str]:
        """See `Case`."""
        return "toolkit.bench.cases:transformers_opener", str(self.checkpoint)

    def subject(self, result: Result) -> Subject:
        """See `Case`."""
        assert result.parameter_bytes is not None
        disk_bytes = sum(file.stat().st_size for file in self.weight_files)
        return foreign_subject("transformers", self.checkpoint_sha256, result.parameter_bytes, disk_bytes)

    def arithmetic(self) -> Arithmetic | None:
        """Return None: the runner computes it from an artifact's manifest."""
        return None


def foreign_subject(runtime: str, checkpoint_sha256: str, artifact_bytes: int, disk_bytes: int) -> Subject:
    """Return the subject of a case that was not exported by this toolkit."""
    return Subject(
        runtime=runtime,
        checkpoint_sha256=checkpoint_sha256,
        recipe=None,
        recipe_sha256=None,
        manifest_digest=None,
        artifact_bytes=artifact_bytes,
        disk_bytes=disk_bytes,
    )


def artifact_opener(path: Path, job: CaseJob) -> Opener:
    """Import the loader and return a function that loads the artifact."""
    from runtimes.loading import load

    def opened() -> Opened:
        captioner = load(path, device=job.device, threads=job.threads, draft=job.draft)
        info = captioner.session.info()
        return Opened(
            captioner=captioner,
            versions=info.versions,
            providers=info.providers,
            scores="score" in captioner.session.capabilities,
            import_s=captioner.timings.import_s,  # `load` hashes the files while it imports the engine's library
            hash_s=captioner.timings.hash_s,
        )

    return opened


def transformers_opener(path: Path, job: CaseJob) -> Opener:
    """Import transformers and return a function that loads the checkpoint."""
    from exporters.checkpoint.checkpoint import open_checkpoint
    from exporters.families.blip_reference import HfCaptioner, versions

    weights = open_checkpoint(str(path), adapter=Path(job.adapter) if job.adapter else None).renamed_weights() if job.renamed else None

    def opened() -> Opened:
        captioner = HfCaptioner(path, job.threads, tied=job.tied, weights=weights, device=job.device)
        size = 4 * sum(parameter.numel() for parameter in captioner.model.parameters())
        return Opened(captioner=captioner, versions=versions(), providers=(job.device,), parameter_bytes=size)

    return opened
