"""Plan and run a benchmark: artifacts, a checkpoint and pictures go in; records come out, one per case and repeat.

Every case runs in its own fresh process; repeats go round all cases, so that drift of a shared machine meets them alike. A case that fails
is a record with its error, and the others go on.
"""

import logging
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from runtimes.artifact.folder import Artifact, open_artifact
from runtimes.artifact.manifest import MANIFEST_NAME
from runtimes.errors import ArtifactMissingError, RequestError
from runtimes.host.facts import memory_bytes, read_host
from runtimes.workers.parent import ask
from toolkit.bench.job import Job, Result
from toolkit.bench.peers.catalogue import find_peer
from toolkit.bench.peers.folder import PEER_NAME, folder_bytes, is_peer, read_folder
from toolkit.bench.roofline.machine_limits import measure_limits
from toolkit.bench.roofline.model_costs import arithmetic_of, baseline_arithmetic, blip_sizes
from toolkit.datasets import Dataset, shown_name
from toolkit.metrics.captions import score_captions
from toolkit.metrics.ngrams import Counter
from toolkit.records.record import BASELINE, SCHEMA, Arithmetic, HostFacts, PictureQuality, Record, Subject, Workload
from toolkit.records.source_commit import source_commit

logger = logging.getLogger(__name__)

NO_GPU = "not run: it is meant for a CUDA GPU and there is none here"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row of the table to be."""

    name: str
    artifact: Artifact | None
    """None: transformers on the checkpoint, or a peer."""
    peer: Path | None = None
    """A folder that `toolkit.peers` prepared."""
    checkpoint: Path | None = None
    weight_files: tuple[Path, ...] = ()
    checkpoint_sha256: str = ""


def artifacts_in(paths: Sequence[Path]) -> list[Path]:
    """Return artifacts and prepared peers as they are and folders of them as what they hold, by name; artifacts come first.

    Raises:
        ArtifactMissingError: A path is neither.
    """
    found: list[Path] = []
    for path in paths:
        marks = [path / name for name in (MANIFEST_NAME, PEER_NAME) if (path / name).is_file()]
        marks = marks or sorted(mark for name in (MANIFEST_NAME, PEER_NAME) for mark in path.glob(f"[!.]*/{name}"))
        inside = [mark.parent for mark in marks]
        if not inside:
            raise ArtifactMissingError(path)
        found += inside
    return sorted(found, key=is_peer)


def plan(artifacts: Sequence[Path], baseline: Case | None) -> list[Case]:
    """Return the cases of a run, the baseline first.

    Raises:
        RequestError: An artifact was made from another checkpoint, or two have the same name.
    """
    peers = [path for path in artifacts if is_peer(path)]
    opened = [open_artifact(path) for path in artifacts if path not in peers]
    names = [artifact.manifest.recipe.get("name", artifact.path.name) for artifact in opened]
    if len(set(names)) < len(names):
        names = [artifact.manifest.name for artifact in opened]
    if len(set(names)) < len(names):
        raise RequestError(f"two artifacts have the same name: {', '.join(sorted({n for n in names if names.count(n) > 1}))}")
    sources = {artifact.manifest.source.sha256 for artifact in opened} | ({baseline.checkpoint_sha256} if baseline else set())
    if len(sources) > 1:
        raise RequestError("these artifacts were not all made from the same checkpoint, so their figures do not compare; bench them apart")
    cases = [Case(name=name, artifact=artifact) for name, artifact in zip(names, opened, strict=True)]
    for path in peers:
        peer = read_folder(path)
        if {peer.checkpoint_sha256} != sources:
            raise RequestError(f"{path}: this peer was not made from the artifacts' checkpoint, so its figures do not compare")
        cases.append(Case(name=peer.name, artifact=None, peer=path, checkpoint_sha256=peer.checkpoint_sha256))
    return [baseline, *cases] if baseline else cases


def run(
    cases: Sequence[Case],
    dataset: Dataset,
    workloads: Sequence[Workload],
    counter: Counter | None,
    on_captions: Callable[[str, int], None],
) -> Iterator[Record]:
    """Run all cases with each workload, `repeats` times round, and yield each record as it is made.

    Args:
        cases: From `plan`.
        dataset: The pictures.
        workloads: What each case does; the cases of one workload run next to each other.
        counter: Who counts n-grams; None without references.
        on_captions: Called with a case's name and a number of captions that it has made, for progress.

    Raises:
        RequestError: A batch would hold more pictures than there are.
    """
    if (largest := max(workload.batch_size for workload in workloads)) > len(dataset.pictures):
        raise RequestError(f"a batch of {largest} needs as many pictures; there are {len(dataset.pictures)}")
    host, arithmetic = host_facts(), _arithmetic(cases)
    limits = {threads: measure_limits(threads) for threads in dict.fromkeys(workload.threads for workload in workloads)}
    for repeat in range(workloads[0].repeats):
        for workload in workloads:
            for case in cases:
                record = _run_case(case, repeat, dataset, workload, host, counter, on_captions)
                work = arithmetic.get(case.name)
                yield record if record.error else replace(record, limits=limits[workload.threads], arithmetic=work)


def _arithmetic(cases: Sequence[Case]) -> dict[str, Arithmetic]:
    """Return what each case must compute on a CPU, by its name; a peer's is not known."""
    manifests = {case.name: case.artifact.manifest for case in cases if case.artifact}
    known = {name: arithmetic_of(manifest) for name, manifest in manifests.items() if manifest.target.device == "cpu"}
    # An approximate artifact has smaller pictures than the baseline.
    exact = [manifest for manifest in manifests.values() if not manifest.target.approximate]
    return known | ({BASELINE: baseline_arithmetic(blip_sizes(exact[0]))} if exact else {})


def host_facts() -> HostFacts:
    """Facts of this machine for the records."""
    host = read_host()
    return HostFacts(
        cpu=host.cpu,
        cpu_features=tuple(sorted(host.cpu_features)),
        cores=host.cores,
        memory_bytes=memory_bytes(),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
    )


def _run_case(
    case: Case,
    repeat: int,
    dataset: Dataset,
    workload: Workload,
    host: HostFacts,
    counter: Counter | None,
    on_captions: Callable[[str, int], None],
) -> Record:
    job = job_of(case, dataset, workload, score=repeat == 0 and counter is not None)
    absent = job.device == "cuda" and not read_host().cuda
    began = datetime.now(UTC)
    result, error = (None, NO_GPU) if absent else _work(job, partial(on_captions, case.name))
    if result is not None and all(result.errors):
        error, result = f"no picture could be captioned: {result.errors[0]}", None
    record = Record(
        schema=SCHEMA,
        case=case.name,
        repeat=repeat,
        host=host,
        workload=workload,
        subject=None,
        versions={},
        providers=(),
        error=error,
        measured_at=f"{began:%Y-%m-%dT%H:%M:%SZ}",
        commit=source_commit(),
    )
    if result is None:
        logger.log(logging.WARNING if repeat == 0 else logging.INFO, "%s: %s", case.name, error)
        return record
    return replace(
        record,
        subject=_subject(case, result),
        versions=result.versions,
        providers=result.providers,
        import_s=result.import_s,
        load_s=result.load_s,
        first_caption_s=result.first_caption_s,
        hash_s=result.hash_s,
        cpu_s=result.cpu_s,
        energy_j=result.energy_j,
        throttled_s=result.throttled_s,
        loaded_rss_bytes=result.loaded_rss_bytes,
        peak_rss_bytes=result.peak_rss_bytes,
        warmup_s=result.warmup_s,
        times=result.times,
        quality=_quality(dataset, result, counter) if repeat == 0 else (),
    )


def job_of(case: Case, dataset: Dataset, workload: Workload, *, score: bool) -> Job:
    """Say what one process does for a case."""
    return Job(
        artifact=str(case.artifact.path) if case.artifact else None,
        checkpoint=str(case.checkpoint) if case.checkpoint else None,
        peer=str(case.peer) if case.peer else None,
        device=case.artifact.manifest.target.device if case.artifact else "cpu",
        allow_bin=any(file.suffix == ".bin" for file in case.weight_files),
        threads=workload.threads,
        batch_size=workload.batch_size,
        images=tuple(str(picture.path) for picture in dataset.pictures),
        references=tuple(picture.captions for picture in dataset.pictures),
        prompt=workload.prompt,
        beams=workload.beams,
        min_length=workload.min_length,
        max_length=workload.max_length,
        warmup=workload.warmup,
        score=score,
    )


def _work(job: Job, on_captions: Callable[[int], None]) -> tuple[Result | None, str | None]:
    """Run a worker process; return its result, or why there is none."""
    return ask("toolkit.bench.case_worker", job, Result, threads=job.threads, on_progress=on_captions)


def _subject(case: Case, result: Result) -> Subject:
    if case.peer is not None:
        size = folder_bytes(case.peer)
        return Subject(
            runtime=find_peer(case.name).runtime,
            checkpoint_sha256=case.checkpoint_sha256,
            recipe=None,
            recipe_sha256=None,
            manifest_digest=None,
            artifact_bytes=size,
            disk_bytes=size,
        )
    if case.artifact is None:
        disk = sum(file.stat().st_size for file in case.weight_files)
        assert result.parameter_bytes is not None
        return Subject(
            runtime="transformers",
            checkpoint_sha256=case.checkpoint_sha256,
            recipe=None,
            recipe_sha256=None,
            manifest_digest=None,
            artifact_bytes=result.parameter_bytes,
            disk_bytes=disk,
        )
    manifest = case.artifact.manifest
    return Subject(
        runtime=manifest.runtime,
        checkpoint_sha256=manifest.source.sha256,
        recipe=manifest.recipe.get("name"),
        recipe_sha256=manifest.recipe.get("sha256"),
        manifest_digest=manifest.digest,
        artifact_bytes=case.artifact.total_bytes,
        disk_bytes=case.artifact.total_bytes,
        components=case.artifact.component_bytes,
    )


def _quality(dataset: Dataset, result: Result, counter: Counter | None) -> tuple[PictureQuality, ...]:
    said = [
        PictureQuality(file=shown_name(picture.path.name), caption=caption, tokens=tokens, error=error)
        for picture, caption, tokens, error in zip(dataset.pictures, result.captions, result.tokens, result.errors, strict=True)
    ]
    if counter is None:
        return tuple(said)
    scores = score_captions(result.without_prompt, [picture.captions for picture in dataset.pictures], counter.count)
    return tuple(
        replace(
            picture,
            matches=score.ngrams.matches,
            totals=score.ngrams.totals,
            hypothesis_length=score.ngrams.hypothesis_length,
            reference_length=score.ngrams.reference_length,
            cider=score.cider,
            rouge_l=score.rouge_l,
            log_probability=log_probability,
            scored_tokens=scored,
        )
        if picture.error is None
        else picture
        for picture, score, log_probability, scored in zip(said, scores, result.log_probabilities, result.scored_tokens, strict=True)
    )
