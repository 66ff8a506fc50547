"""The cases of a benchmark: `Case` and its implementations for artifacts and for transformers.

A worker process opens a case; a record stores its size. `toolkit.bench.peers` implements `Case` for other tools; it is imported only when
one of its folders is measured, because wheels do not contain it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from runtimes.artifact.folder import Artifact
from runtimes.engine_registry import load_target
from toolkit.bench.job import CaseJob, CaseResult
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

    model: Any
    """Has the methods that `toolkit.bench.tasks` uses of a `TextGenerator` or a `Matcher` of `runtimes.tasks`."""
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

    def subject(self, result: CaseResult) -> Subject:
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

    def subject(self, result: CaseResult) -> Subject:
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
            precision=manifest.target.precision,
            approximate=manifest.target.approximate,
            drift_limit_nat=manifest.recipe.get("drift_limit_nat"),
        )

    def arithmetic(self) -> Arithmetic | None:
        """See `Case`."""
        return arithmetic_of(self.artifact.manifest) if self.device == "cpu" else None


@dataclass(frozen=True, kw_only=True)
class TransformersCase:
    """The baseline: transformers' FP32 model of the checkpoint."""

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

    def subject(self, result: CaseResult) -> Subject:
        """See `Case`."""
        assert result.parameter_bytes is not None
        disk_bytes = sum(file.stat().st_size for file in self.weight_files)
        return foreign_subject("transformers", self.checkpoint_sha256, result.parameter_bytes, disk_bytes)

    def arithmetic(self) -> Arithmetic | None:
        """Return None: the runner computes it from an artifact's manifest."""
        return None


def foreign_subject(runtime: str, checkpoint_sha256: str, artifact_bytes: int, disk_bytes: int) -> Subject:
    """Return the subject of a case that was not exported by this toolkit.

    Args:
        runtime: Name of the runtime.
        checkpoint_sha256: Digest of the checkpoint's weights.
        artifact_bytes: Bytes that a device needs.
        disk_bytes: Bytes of the weight files on disk.
    """
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
        model = load(path, task=job.task, device=job.device, threads=job.threads, draft=job.draft)
        info = model.session.info()
        return Opened(
            model=model,
            versions=info.versions,
            providers=info.providers,
            scores="score" in model.session.capabilities,
            import_s=model.timings.import_s,  # `load` hashes the files while it imports the engine's library
            hash_s=model.timings.hash_s,
        )

    return opened


def transformers_opener(path: Path, job: CaseJob) -> Opener:
    """Import transformers and return a function that loads the checkpoint."""
    from exporters.checkpoint.checkpoint import open_checkpoint
    from exporters.families.architectures import BASELINES
    from exporters.families.blip_reference import versions

    baseline = load_target(BASELINES[job.task])
    weights = open_checkpoint(str(path), adapter=Path(job.adapter) if job.adapter else None).renamed_weights() if job.renamed else None

    def opened() -> Opened:
        model = baseline(path, job.threads, tied=job.tied, weights=weights, device=job.device)
        size = 4 * sum(parameter.numel() for parameter in model.model.parameters())
        return Opened(model=model, versions=versions(), providers=(job.device,), parameter_bytes=size)

    return opened
