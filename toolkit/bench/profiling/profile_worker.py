"""Profile one artifact in this fresh process (a worker of `runtimes.workers`).

The images are captioned twice: first without a profiler, to time the stages; then with the runtime's profiler, to time the operators. The
profiler slows every run, so the times of the stages come from the first pass.
"""

import gc
import time
from pathlib import Path

from runtimes.artifact.folder import open_artifact
from runtimes.engine_registry import find_engine, load_target
from runtimes.errors import RequestError
from runtimes.families.signature import SINGLE
from runtimes.loading import load
from runtimes.tasks.captioner import Captioner
from runtimes.workers.child import Send, serve
from toolkit.bench.job import CaseJob
from toolkit.bench.profiling.profile import Profile, Stage
from toolkit.bench.profiling.trace import Trace, Tracer, outside_runs

STAGES = ("read", "encode", "first_token", "token")


class _PassTimer:
    """Collects every phase of a pass but "step", which repeats the seconds of tokens, in order."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.seconds: list[float] = []
        self.total_s = 0.0

    def __call__(self, phase: str, seconds: float) -> None:
        if phase in STAGES:
            self.phases.append(phase)
            self.seconds.append(seconds)

    def add(self, caption: "_PassTimer", total_s: float) -> None:
        """Add the phases and the total seconds of one caption."""
        self.phases += caption.phases
        self.seconds += caption.seconds
        self.total_s += total_s

    def sums(self) -> dict[str, float]:
        """Return phase → seconds."""
        sums = dict.fromkeys(STAGES, 0.0)
        for phase, seconds in zip(self.phases, self.seconds, strict=True):
            sums[phase] += seconds
        return sums


def measure(job: CaseJob, send: Send) -> Profile:
    """Caption all images twice and combine both passes.

    Raises:
        RequestError: The artifact has a single graph, its engine has no profiler, or no image can be captioned.
    """
    manifest = open_artifact(Path(job.path)).manifest
    if manifest.contract == SINGLE:
        raise RequestError("a single-graph artifact cannot be profiled, because one run contains all stages; profile the split recipe")
    profiler = find_engine(manifest.runtime).profiler
    if profiler is None:
        raise RequestError(f"the engine '{manifest.runtime}' has no profiler; run the benchmark without --profile")
    tracer: Tracer = load_target(profiler)()
    with tracer.timing_runs() as runs:
        plain, readable = _plain(job, runs, send)
    gc.collect()
    tracer.open()
    traced = _traced(job, readable, tracer, send)  # the captioner is freed on return, as `Tracer.read` requires
    return summarize(plain, runs, traced, tracer.read(), len(readable))


def _plain(job: CaseJob, runs: list[float], send: Send) -> tuple[_PassTimer, list[str]]:
    """Return the times of all images that can be captioned, and their paths."""
    captioner = load(job.path, device=job.device, threads=job.threads, draft=False)
    _warm_up(captioner, job, _PassTimer())
    runs.clear()
    timer, readable, error = _PassTimer(), [], None
    for image in job.images:
        caption_timer, started = _PassTimer(), time.perf_counter()
        [caption] = captioner.caption([image], **job.decoding(captioner), timer=caption_timer)
        elapsed = time.perf_counter() - started
        send(1)
        if caption.error is None:  # an image that fails takes less time than a caption
            timer.add(caption_timer, elapsed)
            readable.append(image)
        error = error or caption.error
    if not readable:
        raise RequestError(f"every image failed: {error}")
    return timer, readable


def _traced(job: CaseJob, images: list[str], tracer: Tracer, send: Send) -> _PassTimer:
    captioner = load(job.path, device=job.device, threads=job.threads, draft=False)
    warming, timer = _PassTimer(), _PassTimer()
    _warm_up(captioner, job, warming)
    tracer.start(captioner, warming.phases)
    for image in images:
        caption_timer, started = _PassTimer(), time.perf_counter()
        captioner.caption([image], **job.decoding(captioner), timer=caption_timer)
        timer.add(caption_timer, time.perf_counter() - started)
        send(1)
    return timer


def _warm_up(captioner: Captioner, job: CaseJob, timer: _PassTimer) -> None:
    for turn in range(max(1, job.warmup)):
        captioner.caption([job.images[turn % len(job.images)]], **job.decoding(captioner), timer=timer)


def summarize(plain: _PassTimer, runs: list[float], traced: _PassTimer, trace: Trace, images: int) -> Profile:
    """Combine both passes to means over images.

    Args:
        plain: The pass without a profiler.
        runs: Seconds of each run of the engine in that pass; empty if the tracer cannot time them.
        traced: The pass with the profiler.
        trace: What the profiler measured in it.
        images: Number of images in each pass.
    """
    sums = plain.sums()
    if runs:
        python = outside_runs(plain.phases, plain.seconds, iter(runs))
    else:  # only the profiler times the runs: take the share outside runs from the traced pass
        outside, whole = outside_runs(traced.phases, traced.seconds, iter(trace.runs)), traced.sums()
        python = {phase: sums[phase] * outside[phase] / whole[phase] for phase in outside}
    stages = [
        Stage(name=name, seconds=sums[name] / images, python_seconds=python[name] / images if name in python else None) for name in STAGES
    ]
    stages.append(Stage(name="rest", seconds=(plain.total_s - sum(plain.seconds)) / images, python_seconds=None))
    return Profile(
        images=images,
        tokens=(plain.phases.count("first_token") + plain.phases.count("token")) / images,
        seconds=plain.total_s / images,
        traced_seconds=traced.total_s / images,
        stages=tuple(stages),
        operators={
            component: {name: seconds / images for name, seconds in operators.items()} for component, operators in trace.operators.items()
        },
    )


if __name__ == "__main__":
    serve(CaseJob, measure)
