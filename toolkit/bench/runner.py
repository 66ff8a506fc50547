"""Plan and run a benchmark; yield one record per case and repeat.

Each case runs in a fresh process. All cases run before the next repeat starts, so that a machine that becomes slower affects all of them.
A case that fails becomes a record with an error; the other cases continue.
"""

import logging
import math
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from runtimes.artifact.folder import open_artifact
from runtimes.artifact.manifest import MANIFEST_NAME
from runtimes.errors import ArtifactMissingError, RequestError
from runtimes.host.facts import gpu_name, memory_bytes, read_host
from runtimes.workers.parent import request_once
from toolkit.bench.cases import PEER_NAME, ArtifactCase, Case, TransformersCase, is_peer
from toolkit.bench.distributions import temporary_folder
from toolkit.bench.job import CaseJob, CaseResult
from toolkit.bench.roofline.machine_limits import measure_limits
from toolkit.bench.roofline.model_costs import arithmetic_of, baseline_arithmetic, blip_sizes
from toolkit.bench.tasks.metrics import Metrics
from toolkit.datasets import Dataset, shown_name
from toolkit.records.image_quality import ImageQuality
from toolkit.records.record import BASELINE, SCHEMA, Arithmetic, HostFacts, Record, Workload
from toolkit.records.source_commit import source_commit

logger = logging.getLogger(__name__)

NO_GPU = "not run: it needs a CUDA GPU, and this machine has none"
OTHER_DEVICE = "not run: the artifact targets a CUDA GPU, and this run is on the CPU; measure it with --device cuda"


def artifacts_in(paths: Sequence[Path]) -> list[Path]:
    """Return the folders of artifacts, then those of prepared peers.

    Args:
        paths: Artifacts, prepared peers, or folders that contain some of them.

    Raises:
        ArtifactMissingError: A path is none of these.
    """
    folders: list[Path] = []
    for path in paths:
        marks = [path / name for name in (MANIFEST_NAME, PEER_NAME) if (path / name).is_file()]
        marks = marks or sorted(mark for name in (MANIFEST_NAME, PEER_NAME) for mark in path.glob(f"[!.]*/{name}"))
        inside = [mark.parent for mark in marks]
        if not inside:
            raise ArtifactMissingError(path)
        folders += inside
    return sorted(folders, key=is_peer)


def plan(artifacts: Sequence[Path], baseline: Case | None) -> list[Case]:
    """Return the cases of a run, the baseline first.

    Raises:
        RequestError: The artifacts have different checkpoints, or two have the same name.
    """
    cases: list[Case] = _artifact_cases([path for path in artifacts if not is_peer(path)])
    sources = {case.checkpoint_sha256 for case in (*cases, *([baseline] if baseline else ()))}
    if len(sources) > 1:
        raise RequestError("these artifacts have different checkpoints, so they cannot be compared; run one benchmark per checkpoint")
    for path in filter(is_peer, artifacts):
        peer = _peer_case(path)
        if {peer.checkpoint_sha256} != sources:
            raise RequestError(f"{path}: this peer has another checkpoint than the artifacts; prepare it from theirs")
        cases.append(peer)
    return [baseline, *cases] if baseline else cases


def _artifact_cases(paths: Sequence[Path]) -> list[Case]:
    """Return the cases of artifacts. A case is named after its recipe, or after its artifact if two artifacts have the same recipe."""
    artifacts = [open_artifact(path) for path in paths]
    if len(tasks := sorted({artifact.manifest.task for artifact in artifacts})) > 1:
        raise RequestError(f"these artifacts have different tasks ({', '.join(tasks)}), so they cannot be compared; name those of one task")
    names = [artifact.manifest.recipe.get("name", artifact.path.name) for artifact in artifacts]
    if len(set(names)) < len(names):
        names = [artifact.manifest.name for artifact in artifacts]
    if len(set(names)) < len(names):
        repeated = ", ".join(sorted({name for name in names if names.count(name) > 1}))
        raise RequestError(f"two artifacts have the same name: {repeated}; remove one of them")
    return [ArtifactCase(name=name, artifact=artifact) for name, artifact in zip(names, artifacts, strict=True)]


def _peer_case(path: Path) -> Case:
    try:
        from toolkit.bench.peers.case import read_case
    except ModuleNotFoundError as error:
        raise RequestError(f"{path}: an installed wheel cannot measure peers; run the benchmark in the toolkit's source tree") from error
    return read_case(path)


def run(
    cases: Sequence[Case],
    dataset: Dataset,
    workloads: Sequence[Workload],
    metrics: Metrics | None,
    on_samples: Callable[[str, int], None],
) -> Iterator[Record]:
    """Run all cases with each workload, `repeats` times; yield each record as soon as it exists.

    Args:
        cases: From `plan`.
        dataset: The images and their references.
        workloads: One per setting. All cases of one workload run before the next workload.
        metrics: Those of the task; None: nothing is scored.
        on_samples: Called with the case's name and the number of new results, to show progress.

    Raises:
        RequestError: A batch size is larger than the number of images.
    """
    if (largest := max(workload.batch_size for workload in workloads)) > len(dataset.images):
        raise RequestError(f"a batch of {largest} needs {largest} images, and there are {len(dataset.images)}; lower --batch-size")
    host, arithmetic, limits = host_facts(), {}, {}
    if workloads[0].device is None:
        arithmetic = _arithmetic(cases)
    if arithmetic:
        limits = {threads: measure_limits(threads) for threads in dict.fromkeys(workload.threads for workload in workloads)}
    with temporary_folder() as distributions:
        for repeat in range(workloads[0].repeats):
            for workload in workloads:
                for case in cases:
                    record = _run_case(case, repeat, dataset, workload, host, metrics, distributions, on_samples)
                    work = arithmetic.get(case.name)
                    yield record if record.error else replace(record, limits=limits.get(workload.threads), arithmetic=work)


def _arithmetic(cases: Sequence[Case]) -> dict[str, Arithmetic]:
    """Return the minimum work of each case by name; cases whose work is unknown are left out."""
    known = {case.name: work for case in cases if (work := case.arithmetic())}
    # The images of an approximate artifact are smaller than the baseline's, so its sizes do not apply.
    manifests = [case.artifact.manifest for case in cases if isinstance(case, ArtifactCase)]
    exact = next((manifest for manifest in manifests if arithmetic_of(manifest) and not manifest.target.approximate), None)
    return known | ({BASELINE: baseline_arithmetic(blip_sizes(exact))} if exact else {})


def host_facts() -> HostFacts:
    """Return the facts about this machine that records store."""
    host = read_host()
    return HostFacts(
        cpu=host.cpu,
        cpu_features=tuple(sorted(host.cpu_features)),
        cores=host.cores,
        memory_bytes=memory_bytes(),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        gpu=gpu_name(),
    )


def _run_case(
    case: Case,
    repeat: int,
    dataset: Dataset,
    workload: Workload,
    host: HostFacts,
    metrics: Metrics | None,
    distributions: Path | None,
    on_samples: Callable[[str, int], None],
) -> Record:
    job = job_of(case, dataset, workload, score=repeat == 0 and metrics is not None, distributions=distributions)
    began = datetime.now(UTC)
    problem = _device_problem(case, workload.device or "cpu")
    result, error = (None, problem) if problem else _work(job, partial(on_samples, case.name))
    if result is not None and (failure := _failure(dataset, result)):
        error, result = failure, None
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
        subject=case.subject(result),
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
        peak_gpu_bytes=result.peak_gpu_bytes,
        warmup_s=result.warmup_s,
        times=result.times,
        quality=_quality(dataset, result, metrics) if repeat == 0 else (),
    )


def _device_problem(case: Case, device: str) -> str | None:
    """Return why a case cannot run on a device, if this is known before it starts; else None."""
    if "cuda" in (device, case.device) and not read_host().cuda:
        return NO_GPU
    return OTHER_DEVICE if case.device == "cuda" != device else None


def job_of(case: Case, dataset: Dataset, workload: Workload, *, score: bool, distributions: Path | None = None) -> CaseJob:
    """Return the request to the worker process of a case.

    Args:
        case: The case.
        dataset: The images and their references.
        workload: The settings.
        score: Whether to score the references.
        distributions: Folder for the baseline's next-token distributions; None: no divergence is measured.
    """
    opener, path = case.open()
    return CaseJob(
        task=workload.task,
        opener=opener,
        path=path,
        device=workload.device or "cpu",
        tied=case.tied if isinstance(case, TransformersCase) else True,
        renamed=isinstance(case, TransformersCase) and case.renamed,
        adapter=str(case.adapter) if isinstance(case, TransformersCase) and case.adapter else None,
        threads=workload.threads,
        batch_size=workload.batch_size,
        images=tuple(str(image.path) for image in dataset.images),
        references=tuple(image.texts for image in dataset.images),
        questions=tuple(image.question for image in dataset.images),
        texts=workload.texts,
        prompt=workload.prompt,
        num_beams=workload.num_beams,
        generation=workload.generation,
        draft=workload.draft,
        forced_tokens=workload.forced_tokens,
        min_length=workload.min_length,
        max_length=workload.max_length,
        warmup=workload.warmup,
        score=score,
        distributions=None if distributions is None else str(distributions),
        stores_distributions=case.name == BASELINE,
    )


def _work(job: CaseJob, on_samples: Callable[[int], None]) -> tuple[CaseResult | None, str | None]:
    """Run a job in a worker process; return the result, or None and the error."""
    return request_once("toolkit.bench.case_worker", job, CaseResult, threads=job.threads, on_progress=on_samples)


def _failure(dataset: Dataset, result: CaseResult) -> str | None:
    """Return the error of a result without any text or with a NaN or infinite score, which a record (strict JSON) cannot store."""
    if all(sample.error for sample in result.samples):
        return f"every image failed: {result.samples[0].error}"
    for image, sample in zip(dataset.images, result.samples, strict=True):
        scores: dict[str, tuple[float, ...]] = {"log-probability of the references": (sample.log_probability or 0.0,)}
        if sample.retrieval is not None:
            scores = {"score of a text": (*sample.retrieval.similarities, *sample.retrieval.probabilities)}
        for name, values in scores.items():
            if wrong := [value for value in values if not math.isfinite(value)]:
                return f"the {name} of {image.path.name} is {wrong[0]}: check the checkpoint's weights, export again"
    return None


def _quality(dataset: Dataset, result: CaseResult, metrics: Metrics | None) -> tuple[ImageQuality, ...]:
    images = [
        ImageQuality(
            file=shown_name(image.path.name), caption=sample.text, tokens=sample.tokens, error=sample.error, question=image.question
        )
        for image, sample in zip(dataset.images, result.samples, strict=True)
    ]
    if metrics is None:
        return tuple(images)
    fields = metrics(result.samples, dataset.images)
    return tuple(
        replace(
            image,
            log_probability=sample.log_probability,
            scored_tokens=sample.scored_tokens,
            kl_divergence=sample.kl_divergence,
            retrieval=sample.retrieval,
            **fields_of_image,
        )
        if image.error is None
        else image
        for image, sample, fields_of_image in zip(images, result.samples, fields, strict=True)
    )
