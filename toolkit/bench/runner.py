"""Plan and run a benchmark: artifacts, a checkpoint and images go in; records come out, one per case and repeat.

Every case runs in its own fresh process; repeats go round all cases, so that drift of a shared machine meets them alike. A case that fails
is a record with its error, and the others go on.
"""

import logging
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from runtimes.artifact.folder import open_artifact
from runtimes.artifact.manifest import MANIFEST_NAME
from runtimes.errors import ArtifactMissingError, RequestError
from runtimes.host.facts import memory_bytes, read_host
from runtimes.workers.parent import request_once
from toolkit.bench.cases import PEER_NAME, ArtifactCase, Case, TransformersCase, is_peer
from toolkit.bench.job import Job, Result
from toolkit.bench.roofline.machine_limits import measure_limits
from toolkit.bench.roofline.model_costs import baseline_arithmetic, blip_sizes
from toolkit.datasets import Dataset, shown_name
from toolkit.metrics.captions import score_captions
from toolkit.metrics.ngrams import Counter
from toolkit.records.record import BASELINE, SCHEMA, Arithmetic, HostFacts, ImageQuality, Record, Workload
from toolkit.records.source_commit import source_commit

logger = logging.getLogger(__name__)

NO_GPU = "not run: it is meant for a CUDA GPU and there is none here"


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
    cases: list[Case] = _artifact_cases([path for path in artifacts if not is_peer(path)])
    sources = {case.checkpoint_sha256 for case in (*cases, *([baseline] if baseline else ()))}
    if len(sources) > 1:
        raise RequestError("these artifacts were not all made from the same checkpoint, so their figures do not compare; bench them apart")
    for path in filter(is_peer, artifacts):
        peer = _peer_case(path)
        if {peer.checkpoint_sha256} != sources:
            raise RequestError(f"{path}: this peer was not made from the artifacts' checkpoint, so its figures do not compare")
        cases.append(peer)
    return [baseline, *cases] if baseline else cases


def _artifact_cases(paths: Sequence[Path]) -> list[Case]:
    """Name artifacts after their recipes, or after themselves where two have one recipe."""
    artifacts = [open_artifact(path) for path in paths]
    names = [artifact.manifest.recipe.get("name", artifact.path.name) for artifact in artifacts]
    if len(set(names)) < len(names):
        names = [artifact.manifest.name for artifact in artifacts]
    if len(set(names)) < len(names):
        raise RequestError(f"two artifacts have the same name: {', '.join(sorted({n for n in names if names.count(n) > 1}))}")
    return [ArtifactCase(name=name, artifact=artifact) for name, artifact in zip(names, artifacts, strict=True)]


def _peer_case(path: Path) -> Case:
    try:
        from toolkit.bench.peers.case import read_case
    except ModuleNotFoundError as error:
        raise RequestError(f"{path}: a peer is measured from the toolkit's source tree; an installed wheel has no peers") from error
    return read_case(path)


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
        dataset: The images.
        workloads: What each case does; the cases of one workload run next to each other.
        counter: Who counts n-grams; None without references.
        on_captions: Called with a case's name and a number of captions that it has made, for progress.

    Raises:
        RequestError: A batch would hold more images than there are.
    """
    if (largest := max(workload.batch_size for workload in workloads)) > len(dataset.images):
        raise RequestError(f"a batch of {largest} needs as many images; there are {len(dataset.images)}")
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
    known = {case.name: work for case in cases if (work := case.arithmetic())}
    # An approximate artifact has smaller images than the baseline.
    manifests = [case.artifact.manifest for case in cases if isinstance(case, ArtifactCase)]
    exact = next((manifest for manifest in manifests if not manifest.target.approximate), None)
    return known | ({BASELINE: baseline_arithmetic(blip_sizes(exact))} if exact else {})


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
        error, result = f"no image could be captioned: {result.errors[0]}", None
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
        warmup_s=result.warmup_s,
        times=result.times,
        quality=_quality(dataset, result, counter) if repeat == 0 else (),
    )


def job_of(case: Case, dataset: Dataset, workload: Workload, *, score: bool) -> Job:
    """Return what one process does for a case."""
    opener, path = case.open()
    return Job(
        opener=opener,
        path=path,
        device=case.device,
        allow_bin=isinstance(case, TransformersCase) and any(file.suffix == ".bin" for file in case.weight_files),
        threads=workload.threads,
        batch_size=workload.batch_size,
        images=tuple(str(image.path) for image in dataset.images),
        references=tuple(image.captions for image in dataset.images),
        prompt=workload.prompt,
        num_beams=workload.num_beams,
        forced_tokens=workload.forced_tokens,
        min_length=workload.min_length,
        max_length=workload.max_length,
        warmup=workload.warmup,
        score=score,
    )


def _work(job: Job, on_captions: Callable[[int], None]) -> tuple[Result | None, str | None]:
    """Run a worker process; return its result, or why there is none."""
    return request_once("toolkit.bench.case_worker", job, Result, threads=job.threads, on_progress=on_captions)


def _quality(dataset: Dataset, result: Result, counter: Counter | None) -> tuple[ImageQuality, ...]:
    said = [
        ImageQuality(file=shown_name(image.path.name), caption=caption, tokens=tokens, error=error)
        for image, caption, tokens, error in zip(dataset.images, result.captions, result.tokens, result.errors, strict=True)
    ]
    if counter is None:
        return tuple(said)
    scores = score_captions(result.without_prompt, [image.captions for image in dataset.images], counter.count)
    return tuple(
        replace(
            image,
            matches=score.ngrams.matches,
            totals=score.ngrams.totals,
            hypothesis_length=score.ngrams.hypothesis_length,
            reference_length=score.ngrams.reference_length,
            cider=score.cider,
            rouge_l=score.rouge_l,
            log_probability=log_probability,
            scored_tokens=scored,
        )
        if image.error is None
        else image
        for image, score, log_probability, scored in zip(said, scores, result.log_probabilities, result.scored_tokens, strict=True)
    )
