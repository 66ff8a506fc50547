"""Profile artifacts: the seconds of each stage and operator of one caption. Profiles are not stored as records."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from runtimes.host.facts import read_host
from runtimes.workers.parent import request_once
from toolkit.bench.cases import ArtifactCase, Case
from toolkit.bench.runner import NO_GPU, job_of
from toolkit.datasets import Dataset
from toolkit.records.record import Workload

NO_PROFILER = "not run: only artifacts can be profiled"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of a caption; seconds are means per caption."""

    name: str
    seconds: float
    """Measured without a profiler."""
    python_seconds: float | None
    """Seconds outside the runtime's engine; None if the stage does not run the engine."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The profile of one artifact; means over images."""

    images: int
    tokens: float
    seconds: float
    """Seconds per caption without a profiler: the sum of the stages."""
    traced_seconds: float
    """Seconds per caption with the profiler, which slows it; the operators are parts of this time."""
    stages: tuple[Stage, ...]
    operators: dict[str, dict[str, float]]
    """Component → operator → seconds per caption with the profiler."""


@dataclass(frozen=True, kw_only=True)
class Profiled:
    """A case's profile or its error."""

    case: str
    profile: Profile | None
    error: str | None


def profile_cases(
    cases: Sequence[Case], dataset: Dataset, workload: Workload, on_captions: Callable[[str, int], None]
) -> Iterator[Profiled]:
    """Profile each artifact in a fresh process; any other case gets an error.

    Args:
        cases: From `toolkit.bench.runner.plan`.
        dataset: The images.
        workload: Images, threads and settings of the search.
        on_captions: Called with the name of the case and the number of its captions so far.
    """
    for case in cases:
        job = job_of(case, dataset, workload, score=False)
        profile: Profile | None = None
        error: str | None = NO_GPU if isinstance(case, ArtifactCase) else NO_PROFILER
        if isinstance(case, ArtifactCase) and (job.device != "cuda" or read_host().cuda):
            report = partial(on_captions, case.name)
            profile, error = request_once("toolkit.bench.profiling.profile_worker", job, Profile, threads=job.threads, on_progress=report)
        yield Profiled(case=case.name, profile=profile, error=error)
