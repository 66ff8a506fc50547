"""Where the time of one caption goes: artifacts and images go in, each one's stages and operators come out. No record is kept."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from runtimes.host.facts import read_host
from runtimes.workers.parent import request_once
from toolkit.bench.cases import ArtifactCase, Case
from toolkit.bench.runner import NO_GPU, job_of
from toolkit.datasets import Dataset
from toolkit.records.record import Workload

NO_PROFILER = "not run: a peer has no profile"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of a caption, in seconds a caption."""

    name: str
    seconds: float
    """Without a profiler."""
    python_seconds: float | None
    """Outside the runtime's engine; None where no engine runs."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One artifact in one process; means over images."""

    images: int
    tokens: float
    seconds: float
    """A caption without a profiler: the sum of its stages."""
    traced_seconds: float
    """A caption with the profiler, which slows it: what the operators are parts of."""
    stages: tuple[Stage, ...]
    operators: dict[str, dict[str, float]]
    """Component → the runtime's name of an operator → seconds a caption, under the profiler."""


@dataclass(frozen=True, kw_only=True)
class Profiled:
    """A case's profile, or why it has none."""

    case: str
    profile: Profile | None
    error: str | None


def profile_cases(
    cases: Sequence[Case], dataset: Dataset, workload: Workload, on_captions: Callable[[str, int], None]
) -> Iterator[Profiled]:
    """Profile artifacts, each in its own fresh process."""
    for case in cases:
        job = job_of(case, dataset, workload, score=False)
        profile: Profile | None = None
        error: str | None = NO_GPU if isinstance(case, ArtifactCase) else NO_PROFILER
        if isinstance(case, ArtifactCase) and (job.device != "cuda" or read_host().cuda):
            report = partial(on_captions, case.name)
            profile, error = request_once("toolkit.bench.profiling.profile_worker", job, Profile, threads=job.threads, on_progress=report)
        yield Profiled(case=case.name, profile=profile, error=error)
